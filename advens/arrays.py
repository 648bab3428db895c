"""The types of arrays, by what they hold."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# A tensor of Keras's backend, or an array that becomes one. Keras has no type for it.
Tensor: TypeAlias = Any

# Images, `(n, h, w, c)`: floats in [0, 1] unless said otherwise.
Images: TypeAlias = npt.NDArray[np.floating]
# The class of each image, `(n,)`.
Labels: TypeAlias = npt.NDArray[np.integer]
# Which answers are right, `(..., n)`.
Answers: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.floating]
Ints: TypeAlias = npt.NDArray[np.integer]
