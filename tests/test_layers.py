import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens.gradients import input_gradient
from advens.layers import HalfWordDropout, MatmulConv2D, quick_input_gradients

SIZES = pytest.mark.parametrize("kernel_size", [1, 3, (2, 5)])
PADDINGS = pytest.mark.parametrize("padding", ["valid", "same"])


def images(channels):
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 7, 6, channels)).astype("float32")


@SIZES
@PADDINGS
def test_matrix_product_is_the_convolution(kernel_size, padding):
    x, rng = images(2), np.random.default_rng(1)
    options = {"filters": 5, "kernel_size": kernel_size, "padding": padding}
    usual, ours = layers.Conv2D(**options), MatmulConv2D(**options)
    for layer in (usual, ours):
        layer.build(x.shape)
    weights = [rng.normal(size=w.shape) for w in usual.get_weights()]
    usual.set_weights(weights)
    ours.set_weights(weights)
    assert_allclose(ours(x), usual(x), rtol=1e-5, atol=1e-5)


def network(channels, kernel_size=3, padding="valid"):
    first = layers.Conv2D(4, kernel_size, padding=padding, activation="tanh")
    return keras.Sequential([keras.Input((7, 6, channels)), first, layers.Conv2D(2, 2)])


def losses(model, x):
    return ops.sum(ops.square(model(x)), axis=(1, 2, 3))


tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="for TensorFlow on a CPU"
)


@tensorflow_only
@SIZES
@PADDINGS
@pytest.mark.parametrize(("channels", "onednn"), [(1, True), (1, False), (3, False)])
def test_quick_gradient_is_the_gradient(
    kernel_size, padding, channels, onednn, monkeypatch
):
    import tensorflow as tf

    monkeypatch.setattr("advens.layers.uses_onednn", lambda: onednn)
    model = network(channels, kernel_size=kernel_size, padding=padding)
    x = tf.constant(images(channels))

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = losses(model, x)
        return tape.gradient(loss, [x, *model.trainable_variables])

    want = gradients()
    with quick_input_gradients(model):
        for layer, quick in zip(model.layers, (True, not onednn), strict=True):
            assert ("convolution_op" in vars(layer)) == quick
        got = gradients()
    assert not any("convolution_op" in vars(layer) for layer in model.layers)
    for a, b in zip(got, want, strict=True):
        assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@tensorflow_only
@pytest.mark.parametrize(
    ("channels", "onednn", "options"),
    [
        (2, True, {}),
        (1, False, {"strides": 2}),
        (1, False, {"dilation_rate": 2}),
        (2, False, {"groups": 2}),
    ],
)
def test_other_layers_are_left_alone(channels, onednn, options, monkeypatch):
    monkeypatch.setattr("advens.layers.uses_onednn", lambda: onednn)
    convolution = layers.Conv2D(4, 3, **options)
    model = keras.Sequential([keras.Input((7, 6, channels)), convolution])
    x = ops.convert_to_tensor(images(channels))
    want = input_gradient(lambda x: losses(model, x), x)
    with quick_input_gradients(model):
        assert "convolution_op" not in vars(model.layers[0])
        got = input_gradient(lambda x: losses(model, x), x)
    assert_array_equal(got, want)


@tensorflow_only
def test_layers_are_as_they_were_after_an_error():
    model = network(1)
    with pytest.raises(KeyError), quick_input_gradients(model):
        raise KeyError
    assert "convolution_op" not in vars(model.layers[0])


@tensorflow_only
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(50, 9, 9, 8), (70, 502)])
def test_dropout_keeps_and_scales_by_its_rate(shape, dtype):
    import tensorflow as tf

    layer = HalfWordDropout(0.4, seed=3, dtype=dtype)
    x = tf.ones(shape, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    gradient = tape.gradient(y, x)
    assert_array_equal(gradient, y)
    values = np.unique(ops.convert_to_numpy(ops.cast(y, "float32")))
    assert_allclose(values, [0, 1 / 0.6], rtol=1e-2 if dtype == "bfloat16" else 1e-6)
    kept = ops.convert_to_numpy(y) != 0
    deviation = np.sqrt(0.24 / kept.size)
    assert abs(kept.mean() - 0.6) < 4 * deviation
    # Numbers whose bits are of one word know nothing of each other.
    assert abs((kept.flat[::2] == kept.flat[1::2]).mean() - 0.52) < 8 * deviation
    again = HalfWordDropout(0.4, seed=3, dtype=dtype)
    assert_array_equal(again(x, training=True), y)
    other = ops.convert_to_numpy(again(x, training=True)) != 0
    assert abs((other == kept).mean() - 0.52) < 8 * deviation
    assert_array_equal(layer(x), x)


@tensorflow_only
def test_dropout_of_an_odd_size():
    x = ops.ones((3, 5))
    y = HalfWordDropout(0.5, seed=0)(x, training=True)
    assert set(ops.convert_to_numpy(y).flat) == {0, 2}
