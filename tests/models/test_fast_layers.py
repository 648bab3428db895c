import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.models.fast_layers import (
    HalfWordDropout,
    MatmulConv2D,
    QuickConv2D,
    has_slow_input_gradient,
)

SIZES = pytest.mark.parametrize("kernel_size", [1, 3, (2, 5)])
PADDINGS = pytest.mark.parametrize("padding", ["valid", "same"])
tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="for TensorFlow on a CPU"
)


def images(channels):
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 7, 6, channels)).astype("float32")


def build_with_equal_weights(shape, *built):
    """Build layers of one kind and give them the same random weights."""
    rng = np.random.default_rng(1)
    for layer in built:
        layer.build(shape)
    weights = [rng.normal(size=w.shape) for w in built[0].get_weights()]
    for layer in built:
        layer.set_weights(weights)


@SIZES
@PADDINGS
def test_matrix_product_is_the_convolution(kernel_size, padding):
    x = images(2)
    options = {"filters": 5, "kernel_size": kernel_size, "padding": padding}
    usual, ours = layers.Conv2D(**options), MatmulConv2D(**options)
    build_with_equal_weights(x.shape, usual, ours)
    assert_allclose(ours(x), usual(x), rtol=1e-5, atol=1e-5)


@tensorflow_only
@SIZES
@PADDINGS
@pytest.mark.parametrize("channels", [1, 3])
def test_quick_convolution_has_the_same_gradients(kernel_size, padding, channels):
    import tensorflow as tf

    x = tf.constant(images(channels))
    options = {"filters": 4, "kernel_size": kernel_size, "padding": padding}
    usual, ours = layers.Conv2D(**options), QuickConv2D(**options)
    build_with_equal_weights(x.shape, usual, ours)

    def output_and_gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            # The gradient from above differs from pixel to pixel.
            loss = ops.sum(ops.square(ops.tanh(y)))
        return [y, *tape.gradient(loss, [x, *layer.trainable_variables])]

    got, want = output_and_gradients(ours), output_and_gradients(usual)
    assert len(got) == 4
    for a, b in zip(got, want, strict=True):
        assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "onednn", "options", "want"),
    [
        (1, True, {}, True),
        (1, False, {}, True),
        (3, False, {"padding": "same", "activation": "relu"}, True),
        # oneDNN's own gradient is as fast, but for grey images.
        (3, True, {}, False),
        (1, False, {"strides": 2}, False),
        (1, False, {"dilation_rate": 2}, False),
        (2, False, {"groups": 2}, False),
    ],
)
def test_which_layers_have_a_slow_gradient(
    monkeypatch, channels, onednn, options, want
):
    monkeypatch.setattr(backend, "uses_onednn", lambda: onednn)
    layer = layers.Conv2D(4, 3, **options)
    assert not has_slow_input_gradient(layer)
    layer.build((None, 7, 6, channels))
    assert has_slow_input_gradient(layer) == (want and not backend.use_xla())


def test_only_keras_own_convolutions_have_a_slow_gradient():
    class Convolution(layers.Conv2D):
        pass

    for layer in (Convolution(4, 3), layers.DepthwiseConv2D(3), layers.Dense(3)):
        layer.build((None, 7, 6, 1))
        assert not has_slow_input_gradient(layer)


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
    # Two entries that are decided by the same random word are independent: they agree
    # with probability .6² + .4².
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
