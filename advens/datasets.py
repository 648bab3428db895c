"""The data sets: `load(name)` gives images in [0, 1] and integer labels."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NAMES = ("digits", "mnist", "cifar10")
DATA_DIR_VARIABLE = "ADVENS_DATA_DIR"

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_NUMERALS = tuple("0123456789")
_CLASS_NAMES = {
    "digits": _NUMERALS,
    "mnist": _NUMERALS,
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}
# One image as it is stored; a grey one gains its channel axis in `_images`.
_STORED_SHAPES: dict[str, tuple[int, ...]] = {"mnist": (28, 28), "cifar10": (32, 32, 3)}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test part of labelled images.

    Attributes:
        name: One of `NAMES`.
        x_train: Training images, `(n, h, w, c)` float32 in [0, 1].
        y_train: Training labels, `(n,)` int64 in 0..num_classes-1.
        x_test: Test images, `(m, h, w, c)` float32 in [0, 1].
        y_test: Test labels, `(m,)` int64 in 0..num_classes-1.
        class_names: The name of each class, in the order of the labels.
    """

    name: str
    x_train: npt.NDArray[np.float32]
    y_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.int64]
    class_names: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image, `(h, w, c)`."""
        return self.x_train.shape[1:]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @functools.cached_property
    def checksums(self) -> dict[str, str]:
        """The sha256, in hex, of the part `"train"` and of the part `"test"`.

        It covers each array's name, dtype, shape and bytes.
        """
        digests = {}
        for part in ("train", "test"):
            digest = hashlib.sha256()
            for key in (f"x_{part}", f"y_{part}"):
                array = np.ascontiguousarray(getattr(self, key))
                digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
                digest.update(array.data.cast("B"))
            digests[part] = digest.hexdigest()
        return digests

    def subset(
        self, train_images: int | None = None, test_images: int | None = None
    ) -> Dataset:
        """Keep the first images of each part, in the order in which they are stored.

        Args:
            train_images: The number of training images to keep; None keeps all.
            test_images: The number of test images to keep; None keeps all.

        Returns:
            A data set of that size, whose arrays are views of this one's.

        Raises:
            ValueError: If a number is below 1 or above what there is.
        """
        kept: dict[str, Any] = {}
        for part, count in (("train", train_images), ("test", test_images)):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if count is not None and not 1 <= count <= len(y):
                raise ValueError(
                    f"`{part}_images` must be in 1..{len(y)} for {self.name}, or None "
                    f"for all. Received: {part}_images={count}"
                )
            kept |= {f"x_{part}": x[:count], f"y_{part}": y[:count]}
        return dataclasses.replace(self, **kept)


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set.

    `digits` ships with scikit-learn and reads no file. `mnist` and `cifar10` come from
    `<name>.npz` in the data directory where it is there, and else from
    `keras.datasets`, which downloads them and checks what it got. The file holds
    `x_train`, `y_train`, `x_test` and `y_test`: images `(n, 28, 28)` or
    `(n, 32, 32, 3)`, uint8 or float in [0, 1]; integer labels `(n,)` or `(n, 1)`.

    Args:
        name: One of `NAMES`.
        data_dir: The data directory; None takes the environment variable
            `ADVENS_DATA_DIR`, and no directory where that is not set.

    Returns:
        The whole data set.

    Raises:
        ValueError: If the name is unknown or the file's content is not as above.
        OSError: If the directory or the file cannot be read, or the download fails.
    """
    if name not in NAMES:
        raise ValueError(f"`name` must be one of {NAMES}. Received: name={name!r}")
    directory = _directory(data_dir)
    if name == "digits":
        arrays = _load_digits()
    else:
        path = directory / f"{name}.npz" if directory else None
        stored = _read(path) if path else None
        source = f"keras.datasets.{name}" if stored is None else str(path)
        arrays = _checked(name, source, stored or _download(name, path))
    return Dataset(name=name, class_names=_CLASS_NAMES[name], **arrays)


def _directory(data_dir: str | os.PathLike[str] | None) -> Path | None:
    origin = "data_dir"
    if data_dir is None:
        origin, data_dir = DATA_DIR_VARIABLE, os.environ.get(DATA_DIR_VARIABLE) or None
    if data_dir is None:
        return None
    directory = os.path.expanduser(data_dir)
    if not os.path.isdir(directory):
        raise NotADirectoryError(
            f"`{origin}` must be an existing directory, or unset to have keras "
            f"download the data. Received: {origin}={os.fspath(data_dir)!r}"
        )
    return Path(directory)


def _read(path: Path) -> dict[str, Any] | None:
    """Read the arrays of a data file; None where there is no file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = archive.files
            arrays = {key: archive[key] for key in _ARRAYS if key in keys}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(
            f"{path} cannot be read: {_reason(error)}. Make it a readable file, or "
            "name another data directory."
        ) from error
    # A damaged archive fails in many ways: BadZipFile, EOFError, zlib.error, ...
    except Exception as error:
        raise ValueError(
            f"{path} is not a whole .npz archive of plain arrays: {_reason(error)}. "
            "Replace the file, or remove it to have keras download the data."
        ) from error
    _require(len(arrays) == 4, path, f"the keys must be {', '.join(_ARRAYS)}", keys)
    return arrays


def _download(name: str, path: Path | None) -> dict[str, Any]:
    import keras

    try:
        train, test = getattr(keras.datasets, name).load_data()
    # Keras reports a failed download as a bare Exception.
    except Exception as error:
        raise OSError(
            f"keras could not download {name}: {_reason(error)}. Check the network, or "
            f"put {name}.npz, with {', '.join(_ARRAYS)}, into the directory "
            f"{path.parent if path else f'that {DATA_DIR_VARIABLE} names'}."
        ) from error
    return dict(zip(_ARRAYS, (*train, *test), strict=True))


def _load_digits() -> dict[str, Any]:
    """Enlarge scikit-learn's digits to 20x20 in the middle of 28x28, as MNIST's are."""
    from scipy import ndimage
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    large = ndimage.zoom(
        digits.images / 16, (1, 2.5, 2.5), order=1, mode="nearest", grid_mode=True
    )
    x = np.pad(np.clip(large, 0, 1), ((0, 0), (4, 4), (4, 4)))[..., np.newaxis]
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        x.astype(np.float32),
        digits.target.astype(np.int64),
        test_size=360,
        random_state=0,
        stratify=digits.target,
    )
    return dict(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _checked(name: str, source: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Check the arrays, and give each its dtype, shape and range in a `Dataset`."""
    shape, last = _STORED_SHAPES[name], len(_CLASS_NAMES[name]) - 1
    form = f"(n, {', '.join(map(str, shape))}), n >= 1"
    checked: dict[str, Any] = {}
    for part in ("train", "test"):
        (x_key, x), (y_key, y) = ((f"{k}_{part}", arrays[f"{k}_{part}"]) for k in "xy")
        fits = x.shape[1:] == shape and len(x) > 0
        _require(fits, source, f"`{x_key}` must have the shape {form}", x.shape)
        # Of an array with a NaN, min and max are NaN and no comparison holds.
        fits = x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1
        rule = f"`{x_key}` must be uint8, or float in [0, 1] without NaN"
        _require(fits or x.dtype == np.uint8, source, rule, _span(x))
        fits = y.shape in {(len(x),), (len(x), 1)}
        rule = f"`{y_key}` must hold one label for each of {len(x)} images"
        _require(fits, source, rule, f"shape {y.shape}")
        fits = y.dtype.kind in "iu" and y.min() >= 0 and y.max() <= last
        rule = f"`{y_key}` must hold integers in 0..{last}"
        _require(fits, source, rule, _span(y))
        pixels = x / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
        checked[x_key] = pixels.reshape(*x.shape[:3], -1)
        checked[y_key] = y.reshape(-1).astype(np.int64)
    return checked


def _span(array: npt.NDArray[Any]) -> str:
    if array.dtype.kind not in "iuf":
        return str(array.dtype)
    return f"{array.dtype} from {array.min()} to {array.max()}"


def _require(fits: bool, source: str | Path, rule: str, received: object) -> None:
    if not fits:
        raise ValueError(
            f"{source}: {rule}. Received: {received}. Correct the file, or remove it "
            "to have keras download the data."
        )


def _reason(error: Exception) -> str:
    """Say in one line what an exception says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
