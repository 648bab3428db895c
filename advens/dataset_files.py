"""The files of data sets: what they hold, and whether that is right."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

ARRAYS: Final = ("x_train", "y_train", "x_test", "y_test")


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read the arrays of a data file; return None if there is no file."""
    try:
        names, arrays = read_npz_file(path, ARRAYS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(
            f"Cannot read {path}: {error.strerror or error}. Make it a readable file "
            "or name another one"
        ) from error
    received = ", ".join(names)
    rule = f"the file must hold the arrays {', '.join(ARRAYS)}"
    require(len(arrays) == len(ARRAYS), path, rule, received)
    return arrays


def read_npz_file(
    path: Path, wanted: Sequence[str]
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the names of all arrays in a file, and those of the wanted that it holds.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged or no .npz file, or an array is a pickle.
    """
    try:
        # What is no zip archive, numpy may take for an array or for a pickle.
        if not zipfile.is_zipfile(path):
            path.open("rb").close()
            raise zipfile.BadZipFile("it is no zip archive")
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            return names, {name: archive[name] for name in wanted if name in names}
    except OSError:
        raise
    except Exception as error:  # damage raises errors with no common base class
        raise ValueError(
            f"{path} must be a whole .npz file of arrays without pickles ({error})"
        ) from error


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
        rule = f"`{y_key}` must hold integers from 0 to {last}"
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
