"""Checks of arguments. Imports nothing of advens but the types of arrays."""

import math
import numbers
import operator
from typing import SupportsIndex, get_args

import numpy as np
import numpy.typing as npt

from advens.arrays import Images, Labels


def check_choices(settings: object, **choices: object) -> None:
    """Raise a `ValueError` if an attribute is none of its choices.

    Args:
        settings: the object that has the attributes.
        **choices: for each attribute, the `Literal` of its possible values.
    """
    for name, choice in choices.items():
        check_choice(name, getattr(settings, name), get_args(choice))


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise a `ValueError` if an argument is none of its choices."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: "
            f"{name}={value!r}"
        )


def check_at_least(name: str, value: float, low: float) -> None:
    """Raise a `ValueError` unless an argument is a finite number, not below `low`."""
    _check_number(name, value)
    if not (low <= value and math.isfinite(value)):
        raise ValueError(
            f"`{name}` must be >= {low} and finite. Received: {name}={value}"
        )


def check_positive(name: str, value: float) -> None:
    """Raise a `ValueError` unless an argument is a finite number above 0."""
    _check_number(name, value)
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"`{name}` must be > 0 and finite. Received: {name}={value}")


def _check_number(name: str, value: object) -> None:
    # numpy's scalars are such numbers, its arrays are not.
    if not isinstance(value, numbers.Real):
        raise ValueError(
            f"`{name}` must be a number. Received: {type(value).__name__} instead"
        )


def check_count(name: str, value: SupportsIndex) -> None:
    """Raise a `ValueError` unless an argument is a whole number of at least 1."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"`{name}` must be an integer >= 1. Received: {name}={value}")


def check_labels(y: Labels, num_classes: int) -> None:
    """Raise a `ValueError` if a label is none of a classifier's classes."""
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"`y` must be labels from 0 to {num_classes - 1}. Received: {y.min()} to "
            f"{y.max()}"
        )


def checked_images(
    x: npt.ArrayLike, y: npt.ArrayLike, *, attacked: bool
) -> tuple[Images, Labels]:
    """Return images `(n, h, w, c)` and labels `(n,)` as arrays, after checking them.

    Args:
        x: the images. Those that are attacked must lie in [0, 1]; adversarial images,
            which are only judged, may leave that range.
        y: `(n,)` or `(n, 1)` integer labels.
        attacked: whether the images are to be attacked.

    Raises:
        ValueError: if these are not such images and labels.
    """
    x, y = np.asarray(x), np.asarray(y)
    largest = np.finfo(np.float32).max
    low, high = (0, 1) if attacked else (-largest, largest)
    if x.ndim < 2:
        raise ValueError(
            "`x` must be images, `(n, h, w, c)`, or other inputs of at least two axes. "
            f"Received: an array of shape {x.shape}"
        )
    # The min and max of an array with a NaN are NaN, and no comparison holds.
    if x.dtype.kind != "f" or x.size == 0 or not (x.min() >= low and x.max() <= high):
        bounds = " in [0, 1]" if attacked else ""
        has_span = x.size > 0 and x.dtype.kind in "biufc"
        span = f" from {x.min()} to {x.max()}" if has_span else ""
        raise ValueError(
            f"`x` must be at least one image, as floats{bounds} without NaN. Any "
            "other scaling belongs in the model, as a Rescaling layer. "
            f"Received: {x.dtype} of shape {x.shape}{span}"
        )
    if y.shape not in {(len(x),), (len(x), 1)} or y.dtype.kind not in "iu":
        raise ValueError(
            "`y` must be one integer label per image, not one-hot vectors. "
            f"Received: {y.dtype} of shape {y.shape} for {len(x)} images"
        )
    return x, y.reshape(-1)
