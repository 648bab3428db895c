import gc
import weakref

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

tf = pytest.importorskip("tensorflow")
if keras.backend.backend() != "tensorflow":
    pytest.skip("for Keras on TensorFlow", allow_module_level=True)

from advens.backend import tensorflow_kernels  # noqa: E402


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("channels", [1, 2])
def test_convolution_by_hand(channels, padding):
    """An image of one bright pixel under a kernel that counts its own entries."""
    x = np.zeros((1, 4, 4, channels), "float32")
    x[0, 1, 2, 0] = 1
    kernel = np.zeros((3, 3, channels, 1), "float32")
    kernel[:, :, 0, 0] = np.arange(9).reshape(3, 3)
    got = tensorflow_kernels.convolution(x, kernel, padding)
    # At the pixel's own place stands the centre of the kernel, which appears rotated.
    want = np.zeros((4, 4))
    want[:3, 1:] = np.arange(9)[::-1].reshape(3, 3)
    want = want[1:3, 1:3] if padding == "VALID" else want
    assert_allclose(got[0, ..., 0], want, rtol=0, atol=0)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sizes", ["static", "dynamic"])
def test_gradients_are_those_of_tensorflow(padding, channels, sizes):
    rng = np.random.default_rng(0)
    kernel = tf.Variable(rng.normal(size=(3, 2, channels, 4)).astype("float32"))
    x = rng.normal(size=(2, 6, 5, channels)).astype("float32")
    shape = x.shape if sizes == "static" else (None, None, None, channels)

    @tf.function(input_signature=[tf.TensorSpec(shape, "float32")])
    def gradients(x):
        results = []
        for convolve in (
            lambda: tensorflow_kernels.convolution(x, kernel, padding),
            lambda: tf.nn.conv2d(x, kernel, 1, padding),
        ):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(tf.square(convolve()))
            results.append(tape.gradient(loss, [x, kernel]))
        return results

    ours, theirs = gradients(x)
    for got, want in zip(ours, theirs, strict=True):
        assert_allclose(got, want, rtol=1e-5, atol=1e-4)
    # Outside of a program, and around one.
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(
            tf.square(tensorflow_kernels.convolution(x, kernel, padding))
        )
    assert_allclose(tape.gradient(loss, kernel), theirs[1], rtol=1e-5, atol=1e-4)
    program = tf.function(lambda: tensorflow_kernels.convolution(x, kernel, padding))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(program()))
    assert_allclose(tape.gradient(loss, kernel), theirs[1], rtol=1e-5, atol=1e-4)


def test_a_program_with_a_quick_gradient_is_freed():
    kernel = tf.Variable(np.ones((2, 2, 1, 3), "float32"))

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tensorflow_kernels.convolution(x, kernel, "VALID"))
        return tape.gradient(loss, x)

    gone = weakref.ref(gradient.get_concrete_function(tf.ones((1, 4, 4, 1))).graph)
    assert gone() is not None
    del gradient
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adam_is_that_of_keras(dtype):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3))
    gradients = gradients.astype("float32")
    settings = {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}
    ours, theirs = (keras.Variable(start, dtype="float32") for _ in range(2))
    moments = [keras.Variable(np.zeros((2, 3)), dtype="float32") for _ in range(2)]
    adam = keras.optimizers.Adam(**settings)
    adam.build([theirs])
    for step, gradient in enumerate(gradients, start=1):
        gradient = tf.cast(gradient, dtype)
        adam.apply([tf.cast(gradient, "float32")], [theirs])
        tensorflow_kernels.apply_adam(ours, *moments, gradient, step=step, **settings)
        assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
    assert np.abs(ours.numpy() - start).min() > 0.001
