"""What a training step computes, and how fast this machine multiplies matrices."""

import math
from collections.abc import Callable

import keras
from keras import ops

from advens import backend
from advens.models import convnet
from advens.models.architecture import Architecture


def step_flops(architecture: Architecture) -> int:
    """Count the floating-point operations of a training step per image.

    Only convolutions and fully connected layers count, with 2 operations per
    multiply-add. A step computes a forward pass, the gradient with respect to the
    weights and, except in the first layer, the gradient with respect to the inputs.
    """
    multiply_adds = [
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for layer in convnet.build(architecture, seed=0).layers
        if hasattr(layer, "kernel")
    ]
    return 2 * (3 * sum(multiply_adds) - multiply_adds[0])


def matrix_product(size: int, dtype: str) -> Callable[[], float]:
    """Return a compiled product of two square matrices: 2 * size**3 operations."""
    matrix = keras.random.uniform((size, size), dtype=dtype, seed=0)
    multiply = backend.compile(ops.matmul, keras.Sequential())
    # Reading one entry waits for the product. It is read outside of the compiled
    # function, which might otherwise compute that entry alone.
    return lambda: float(multiply(matrix, matrix)[0, 0])
