"""The files of data sets: what they hold, and whether that is right."""

from pathlib import Path
from typing import Final

import numpy as np

ARRAYS: Final = ("x_train", "y_train", "x_test", "y_test")


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read the arrays of a data file; return None if there is no file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = archive.files
            arrays = {key: archive[key] for key in ARRAYS if key in keys}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(
            f"{path} cannot be read: {reason(error)}. Make it a readable file, or "
            "name another one"
        ) from error
    # A damaged archive can raise BadZipFile, EOFError, zlib.error and others.
    except Exception as error:
        raise ValueError(
            f"{path} is not a whole .npz archive of plain arrays: {reason(error)}. "
            "Replace the file"
        ) from error
    require(len(arrays) == 4, path, f"the keys must be {', '.join(ARRAYS)}", keys)
    return arrays


def checked_arrays(
    source: str,
    arrays: dict[str, np.ndarray],
    shape: tuple[int, ...],
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Return the arrays as a `Dataset` has them, after checking them.

    Args:
        source: where the arrays come from, for error messages.
        arrays: as they are stored, see `load`.
        shape: that of an image there.
        num_classes: how many classes there are.
    """
    last = num_classes - 1
    expected = f"(n, {', '.join(map(str, shape))}), n >= 1"
    checked: dict[str, np.ndarray] = {}
    for part in ("train", "test"):
        x_key, y_key = f"x_{part}", f"y_{part}"
        x, y = arrays[x_key], arrays[y_key]
        fits = x.shape[1:] == shape and len(x) > 0
        require(fits, source, f"`{x_key}` must have the shape {expected}", x.shape)
        # The min and max of an array with a NaN are NaN, and no comparison holds.
        fits = x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1
        rule = f"`{x_key}` must be uint8, or float in [0, 1] without NaN"
        require(fits or x.dtype == np.uint8, source, rule, span(x))
        fits = y.shape in {(len(x),), (len(x), 1)}
        rule = f"`{y_key}` must hold one label for each of {len(x)} images"
        require(fits, source, rule, f"shape {y.shape}")
        fits = y.dtype.kind in "iu" and y.min() >= 0 and y.max() <= last
        rule = f"`{y_key}` must hold integers in 0..{last}"
        require(fits, source, rule, span(y))
        pixels = x / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
        checked[x_key] = pixels.reshape(*x.shape[:3], -1)
        checked[y_key] = y.reshape(-1).astype(np.int64)
    return checked


def span(array: np.ndarray) -> str:
    """Return an array's dtype and, if it holds real numbers, their range."""
    if array.dtype.kind not in "iuf":
        return str(array.dtype)
    return f"{array.dtype} from {array.min()} to {array.max()}"


def require(fits: bool, source: str | Path, rule: str, received: object) -> None:
    """Raise a `ValueError` unless the data fit a rule."""
    if not fits:
        raise ValueError(f"{source}: {rule}. Received: {received}. Correct the data")


def reason(error: Exception) -> str:
    """Return the type and the message of an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
