"""What a training step computes, and how fast this machine multiplies matrices."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from advens import models
from advens.gradients import compiled


def step_flops(architecture: models.Architecture) -> int:
    """Count the floating-point operations of a training step, an image.

    Convolutions and fully connected layers alone, 2 operations a multiply-add: forward,
    backward by the weights, and, but for the first layer, backward by the inputs.
    """
    macs = [
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for layer in models.build(architecture, seed=0).layers
        if hasattr(layer, "kernel")
    ]
    return 2 * (3 * sum(macs) - macs[0])


def matrix_product(size: int, dtype: str) -> Callable[[], Any]:
    """Return a compiled product of two square matrices, 2 * size**3 operations."""
    matrix = keras.random.uniform((size, size), dtype=dtype, seed=0)
    multiply = compiled(ops.matmul, keras.Sequential())
    # An element is enough to wait for; within the product, it could be all of it.
    return lambda: float(multiply(matrix, matrix)[0, 0])
