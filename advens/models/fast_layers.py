"""Keras's layers, computed in other ways where the libraries' own are slow."""

import keras
from keras import ops

from advens import backend
from advens.arrays import Tensor


class MatmulConv2D(keras.layers.Conv2D):
    """A convolution of stride 1, computed as one matrix product.

    A stack of these is one batched product. From a stack of ordinary ones XLA would
    make grouped convolutions, which on a CPU, in a loop, are 20 to 30 times slower.
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
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


class QuickConv2D(keras.layers.Conv2D):
    """A convolution of stride 1 whose gradient with respect to its input is faster.

    For TensorFlow on a CPU; see `backend.tensorflow_kernels.convolution`.
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Convolve as Keras does, but for that gradient."""
        from advens.backend import tensorflow_kernels

        kernel = ops.convert_to_tensor(kernel)
        padding = self.padding.upper()
        return tensorflow_kernels.convolution(inputs, kernel, padding)


class HalfWordDropout(keras.layers.Dropout):
    """A dropout that decides by 16 random bits per entry, for TensorFlow on a CPU.

    See `backend.tensorflow_kernels.dropout`.
    """

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Drop entries at random in training, and scale the others."""
        if not training or not self.rate:
            return inputs
        from advens.backend import tensorflow_kernels

        seed = self.seed_generator.next()
        return tensorflow_kernels.dropout(inputs, self.rate, seed)


def has_slow_input_gradient(layer: keras.Layer) -> bool:
    """Return whether a layer is a convolution that `QuickConv2D` can speed up."""
    return (
        type(layer) is keras.layers.Conv2D
        and not backend.use_xla()
        and layer.built
        and layer.groups == 1
        and set(layer.strides) == set(layer.dilation_rate) == {1}
        and layer.data_format == "channels_last"
        and (layer.kernel.shape[2] == 1 or not backend.uses_onednn())
    )
