"""What TensorFlow can compute faster on a CPU than Keras asks it to.

Every function computes the same as Keras's own. Results differ by rounding, and those
of dropout by the random numbers. `docs/performance.md` has the measurements.
"""

from collections.abc import Callable
from typing import Literal

import keras
import tensorflow as tf

Padding = Literal["VALID", "SAME"]
InputGradient = Callable[[Padding, tf.Tensor, tf.Tensor, tf.TensorShape], tf.Tensor]


def convolution(x: tf.Tensor, kernel: tf.Tensor, padding: Padding) -> tf.Tensor:
    """Convolve with stride 1, with a faster gradient with respect to `x`.

    For grey images that gradient is one matrix product, whose parts are then added up:
    TensorFlow pads them to sixteen channels, which takes three times as long. For all
    others it is the convolution with the rotated kernel, which without oneDNN takes a
    half to a third of the time of TensorFlow's own.

    Args:
        x: `(n, h, w, c)`.
        kernel: `(rows, columns, c, filters)`.
        padding: of the convolution.
    """
    from tensorflow.python.eager import record

    x, kernel = tf.convert_to_tensor(x), tf.convert_to_tensor(kernel)
    options = {"strides": [1, 1, 1, 1], "padding": padding}
    if None in x.shape[1:3]:
        return tf.nn.conv2d(x, kernel, **options)
    by_input = _gradient_of_grey_input if kernel.shape[2] == 1 else _gradient_of_input

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        by_kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=kernel.shape, out_backprop=upstream, **options
        )
        return by_input(padding, upstream, kernel, x.shape), by_kernel

    # As `tf.custom_gradient` does, which also keeps every traced program for ever: it
    # registers `gradient` under a name of its own.
    with record.stop_recording():
        convolved = tf.nn.conv2d(x, kernel, **options)
    record.record_operation("QuickConv2D", [convolved], [x, kernel], gradient)
    return convolved


def _gradient_of_input(
    padding: Padding, upstream: tf.Tensor, kernel: tf.Tensor, shape: tf.TensorShape
) -> tf.Tensor:
    """Convolve the gradient from above with the rotated kernel."""
    rotated = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    sides = []
    for size in kernel.shape[:2]:
        before, after = ((size - 1) // 2, size // 2) if padding == "SAME" else (0, 0)
        sides.append((size - 1 - before, size - 1 - after))
    return tf.nn.conv2d(upstream, rotated, 1, ((0, 0), *sides, (0, 0)))


def _gradient_of_grey_input(
    padding: Padding, upstream: tf.Tensor, kernel: tf.Tensor, shape: tf.TensorShape
) -> tf.Tensor:
    """Add up what each entry of the kernel passes back to the pixels under it."""
    height, width, _, filters = kernel.shape
    rows, columns = upstream.shape[1:3]
    parts = tf.matmul(
        tf.reshape(kernel, (-1, filters)),
        tf.reshape(upstream, (-1, filters)),
        transpose_b=True,
    )
    parts = tf.reshape(parts, (height, width, -1, rows, columns))
    padded_top, padded_left = 0, 0
    if padding == "SAME":
        padded_top, padded_left = (height - 1) // 2, (width - 1) // 2
    total = tf.zeros((), upstream.dtype)
    for i in range(height):
        for j in range(width):
            # The pixel under this entry, where the kernel stands in the first corner.
            top, left = i - padded_top, j - padded_left
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


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Drop entries at random, deciding by 16 random bits each; scale the others.

    Keras draws a float for each entry, which takes two to three times as long, or a
    bfloat16 in mixed_bfloat16, which only has multiples of 1/128: a rate of .4 becomes
    .406. Here the rate is rounded to a multiple of 2**-16.

    Args:
        x: of any shape.
        rate: the share of entries to drop, in [0, 1).
        seed: two integers.
    """
    size = tf.size(x)
    words = tf.random.stateless_uniform(
        [(size + 1) // 2],
        tf.cast(seed, "int32"),
        minval=None,
        maxval=None,
        dtype="uint32",
    )
    bits = tf.reshape(tf.bitcast(words, "uint16"), [-1])[:size]
    kept = tf.reshape(bits, tf.shape(x)) >= round(rate * 2**16)
    return x * (tf.cast(kept, x.dtype) * tf.cast(1 / (1 - rate), x.dtype))


def apply_adam(
    variable: keras.Variable,
    momentum: keras.Variable,
    velocity: keras.Variable,
    gradient: tf.Tensor,
    *,
    step: tf.Tensor,
    learning_rate: tf.Tensor,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> None:
    """Update a variable and its moments by Adam (Kingma & Ba 2014, arXiv:1412.6980).

    Args:
        variable: what is trained.
        momentum: its first moment.
        velocity: its second moment.
        gradient: of the loss with respect to the variable.
        step: number of the step, from 1.
        learning_rate: a scalar.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        epsilon: is added to the root of the second moment.
    """
    dtype = variable.dtype
    step = tf.cast(step, dtype)
    beta_1, beta_2, learning_rate, epsilon = (
        tf.cast(value, dtype) for value in (beta_1, beta_2, learning_rate, epsilon)
    )
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=momentum.value.handle,
        v=velocity.value.handle,
        beta1_power=tf.pow(beta_1, step),
        beta2_power=tf.pow(beta_2, step),
        lr=learning_rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=tf.cast(gradient, dtype),
    )
