"""Checks of settings, images and labels."""

from typing import Any, get_args

import numpy as np

from advens.ensemble import Ensemble


def check_choices(settings: object, **choices: Any) -> None:
    """Raise a `ValueError` if an attribute is none of its choices.

    Args:
        settings: which has the attributes.
        **choices: for each attribute the `Literal` of what it may be.
    """
    for name, choice in choices.items():
        if (found := getattr(settings, name)) not in get_args(choice):
            raise ValueError(
                f"`{name}` must be one of {get_args(choice)}. "
                f"Received: {name}={found!r}"
            )


def check_ensemble(ensemble: object) -> None:
    """Raise a `ValueError` unless it is an `Ensemble`."""
    if not isinstance(ensemble, Ensemble):
        raise ValueError(
            "`ensemble` must be an `Ensemble`; of a single model, Ensemble([model]). "
            f"Received: {ensemble!r}"
        )


def checked_images(
    x: np.ndarray, y: np.ndarray, *, attacked: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels, `(n,)`, after making sure that they are such."""
    x, y = np.asarray(x), np.asarray(y)
    # Of an array with a NaN, min and max are NaN and no comparison holds.
    # Adversarial images, to be judged, may lie outside of the box.
    largest = np.finfo(np.float32).max
    low, high = (0, 1) if attacked else (-largest, largest)
    if x.dtype.kind != "f" or x.size == 0 or not (x.min() >= low and x.max() <= high):
        span = f" from {x.min()} to {x.max()}" if x.size else ""
        raise ValueError(
            f"`x` must be images as floats{' in [0, 1]' * attacked}, without NaN, one "
            "at least; what else a model expects is for a layer in front of it, as "
            "Rescaling. "
            f"Received: {x.dtype} of shape {x.shape}{span}"
        )
    if y.shape not in {(len(x),), (len(x), 1)} or y.dtype.kind not in "iu":
        raise ValueError(
            "`y` must be one integer label an image, no one-hot vector. "
            f"Received: {y.dtype} of shape {y.shape} for {len(x)} images"
        )
    return x, y.reshape(-1)
