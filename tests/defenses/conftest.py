"""Linear classifiers whose training a test can compute by hand."""

import keras
import pytest
from keras import layers, ops


@keras.saving.register_keras_serializable("tests")
class NegativeInTraining(layers.Layer):
    """Stands for dropout: it too only acts in training, but not at random."""

    def call(self, inputs, training=False):
        return -inputs if training else inputs


def dense(activation=None):
    return layers.Dense(3, activation=activation, name="last")


# For each ending: the layers after Flatten, and `outputs`, where they do not show it.
ENDINGS = {
    "softmax": (lambda: [dense(), layers.Softmax()], None),
    "dense softmax": (lambda: [dense("softmax")], None),
    "logits": (lambda: [dense()], None),
    "hidden logits": (lambda: [dense(), layers.Rescaling(1.0)], "logits"),
    "hidden probs": (lambda: [dense(), layers.Lambda(ops.softmax)], "probs"),
}


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
        model = keras.Sequential([*body, *ENDINGS[ending][0]()])
        model.get_layer("last").set_weights([kernel, bias])
        return model

    return make
