"""Linear classifiers whose training a test can compute by hand."""

import keras
import pytest
from keras import layers, ops


@keras.saving.register_keras_serializable("tests")
class NegativeInTraining(layers.Layer):
    """Stands for dropout: it too only acts in training, but not at random."""

    def call(self, inputs, training=False):
        return -inputs if training else inputs


def dense(units, activation=None):
    return layers.Dense(units, activation=activation, name="last")


# For each ending: the layers after Flatten, and `outputs`, where they do not show it.
ENDINGS = {
    "softmax": (lambda units: [dense(units), layers.Softmax()], None),
    "dense softmax": (lambda units: [dense(units, "softmax")], None),
    "logits": (lambda units: [dense(units)], None),
    "hidden logits": (lambda units: [dense(units), layers.Rescaling(1.0)], "logits"),
    "hidden probs": (lambda units: [dense(units), layers.Lambda(ops.softmax)], "probs"),
}
# Endings of one unit: the second of two classes.
ONE_UNIT = {"sigmoid": (lambda units: [dense(units, "sigmoid")], None)}


@pytest.fixture(params=ENDINGS)
def ending(request):
    """Return how a classifier ends; a test may choose some by `parametrize`."""
    return request.param


@pytest.fixture
def outputs(ending):
    """Return what has to be said of a classifier with this ending."""
    return ENDINGS[ending][1]


@pytest.fixture
def make_classifier():
    """Return a function that builds a classifier of 2x2 images.

    Its logits are `flat @ kernel + bias` with the image's four pixels `flat`, but
    `-flat @ kernel + bias` in training.
    """

    def make(ending, kernel, bias):
        body = [keras.Input((2, 2, 1)), layers.Flatten(), NegativeInTraining()]
        last, _ = (ENDINGS | ONE_UNIT)[ending]
        model = keras.Sequential([*body, *last(len(bias))])
        model.get_layer("last").set_weights([kernel, bias])
        return model

    return make


class Batches(keras.utils.PyDataset):
    """Arrays in batches of four, in order."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[0]) // 4

    def __getitem__(self, index):
        return tuple(array[4 * index : 4 * index + 4] for array in self.arrays)


def tf_data(*arrays):
    import tensorflow as tf

    # As people do it: shuffled and repeated; only here the order is known.
    whole = tf.data.Dataset.from_tensor_slices(arrays)
    return whole.shuffle(1).batch(4).repeat()


def generator(*arrays):
    batches = Batches(*arrays)
    while True:
        yield from (batches[i] for i in range(len(batches)))


@pytest.fixture
def batches():
    """Return the class of a `PyDataset` of arrays, four rows at a time."""
    return Batches


@pytest.fixture(params=[tf_data, Batches, generator])
def in_batches(request):
    """Return a function that makes batches of four of twelve rows, as Keras fits."""
    return request.param
