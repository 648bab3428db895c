"""Other ways to compute Keras's layers, for where the libraries' own are slow."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops


class MatmulConv2D(keras.layers.Conv2D):
    """A convolution of stride 1 that is computed as one matrix product.

    A stack of these is one batched product: XLA would make grouped convolutions of a
    stack, and on a CPU it compiles those in a loop into code 20 to 30 times slower.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Multiply each image's patches, side by side, with the flattened kernel."""
        kernel = ops.convert_to_tensor(kernel)
        height, width, *_ = kernel.shape
        if self.padding == "same":
            sides = [((size - 1) // 2, size // 2) for size in (height, width)]
            inputs = ops.pad(inputs, ((0, 0), *sides, (0, 0)))
        rows = inputs.shape[1] - height + 1
        columns = inputs.shape[2] - width + 1
        patches = ops.concatenate(
            [
                inputs[:, i : i + rows, j : j + columns]
                for i in range(height)
                for j in range(width)
            ],
            axis=-1,
        )
        return ops.matmul(patches, ops.reshape(kernel, (-1, kernel.shape[-1])))


class HalfWordDropout(keras.layers.Dropout):
    """A dropout that decides by 16 random bits a number, for TensorFlow.

    Keras draws a float for each, on a CPU at 2 to 3 times the price; a bfloat16 in
    mixed_bfloat16, which has multiples of 1/128 alone: of rate .4 it makes .406. Here a
    rate is rounded to a multiple of 2**-16.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop numbers, and scale what is kept by 1 / (1 - rate)."""
        if not training or not self.rate:
            return inputs
        import tensorflow as tf

        size = tf.size(inputs)
        words = tf.random.stateless_uniform(
            [(size + 1) // 2],
            tf.cast(self.seed_generator.next(), "int32"),
            minval=None,
            maxval=None,
            dtype="uint32",
        )
        bits = tf.reshape(tf.bitcast(words, "uint16"), [-1])[:size]
        kept = tf.reshape(bits, tf.shape(inputs)) >= round(self.rate * 2**16)
        scale = 1 / (1 - self.rate)
        return inputs * (tf.cast(kept, inputs.dtype) * tf.cast(scale, inputs.dtype))


class QuickConv2D(keras.layers.Conv2D):
    """A convolution of stride 1 that is as `quick_input_gradients` makes others."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve as Keras does, but for the gradient by `inputs`."""
        by_input = _by_grey_input if kernel.shape[2] == 1 else _by_input
        return _convolution(by_input, self.padding.upper(), inputs, kernel)


@contextlib.contextmanager
def quick_input_gradients(model: keras.Model) -> Iterator[None]:
    """Let gradients by images be quick, of what `model` is called for meanwhile.

    It is for TensorFlow on a CPU, and changes how convolutions of stride 1 pass
    gradients back to their inputs. Those of grey images are padded to sixteen channels:
    as a matrix product, whose parts are then added up, they take a third of the time.
    All others, without oneDNN, take two to three times that of the convolution with
    the kernel turned about, which they are. Each is the same but for rounding, and any
    other layer is left as it is.
    """
    layers = [layer for layer in model._flatten_layers() if _is_slow(layer)]
    try:
        for layer in layers:
            layer.convolution_op = functools.partial(QuickConv2D.convolution_op, layer)
        yield
    finally:
        for layer in layers:
            del layer.convolution_op


def _is_slow(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.built
        and layer.groups == 1
        and set(layer.strides) == set(layer.dilation_rate) == {1}
        and layer.data_format == "channels_last"
        and (layer.kernel.shape[2] == 1 or not uses_onednn())
    )


def uses_onednn() -> bool:
    """Return whether TensorFlow computes by oneDNN, see `process.use_onednn`."""
    # As TensorFlow's own tests ask.
    from tensorflow.python.framework import test_util

    return bool(test_util.IsMklEnabled())


def _convolution(by_input: Callable, padding: str, x: Any, kernel: Any) -> Any:
    """Convolve, with a gradient by `x` of one's own."""
    import tensorflow as tf

    @tf.custom_gradient
    def convolution(x: Any, kernel: Any) -> Any:
        options = {"strides": [1, 1, 1, 1], "padding": padding}

        def gradient(upstream: Any) -> tuple[Any, Any]:
            by_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=kernel.shape, out_backprop=upstream, **options
            )
            return by_input(padding, upstream, kernel, x.shape), by_kernel

        return tf.nn.conv2d(x, kernel, **options), gradient

    # A tensor: a variable would want to know of the gradient itself.
    return convolution(x, tf.convert_to_tensor(ops.convert_to_tensor(kernel)))


def _by_input(padding: str, upstream: Any, kernel: Any, shape: Any) -> Any:
    """Convolve what comes back with the kernel turned about."""
    import tensorflow as tf

    turned = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    sides = []
    for size in kernel.shape[:2]:
        before, after = ((size - 1) // 2, size // 2) if padding == "SAME" else (0, 0)
        sides.append((size - 1 - before, size - 1 - after))
    return tf.nn.conv2d(upstream, turned, 1, ((0, 0), *sides, (0, 0)))


def _by_grey_input(padding: str, upstream: Any, kernel: Any, shape: Any) -> Any:
    """Add up what each place of the kernel passes back to the pixels under it."""
    import tensorflow as tf

    height, width, _, filters = kernel.shape
    rows, columns = upstream.shape[1:3]
    parts = tf.matmul(
        tf.reshape(kernel, (-1, filters)),
        tf.reshape(upstream, (-1, filters)),
        transpose_b=True,
    )
    parts = tf.reshape(parts, (height, width, -1, rows, columns))
    same = padding == "SAME"
    total = tf.zeros((), upstream.dtype)
    for i in range(height):
        for j in range(width):
            # The pixel under this place, for the first row and column.
            top = i - (height - 1) // 2 * same
            left = j - (width - 1) // 2 * same
            part = parts[
                i,
                j,
                :,
                max(0, -top) : min(rows, shape[1] - top),
                max(0, -left) : min(columns, shape[2] - left),
            ]
            above, before = max(top, 0), max(left, 0)
            below = shape[1] - above - part.shape[1]
            after = shape[2] - before - part.shape[2]
            total += tf.pad(part, ((0, 0), (above, below), (before, after)))
    return total[..., tf.newaxis]
