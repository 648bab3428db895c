"""The data sets: `load(name)` returns images in [0, 1] and integer labels."""

import dataclasses
import functools
import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

NAMES = ("digits", "mnist", "cifar10")
DISPLAY_NAMES = {"digits": "Digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}
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
# The shape of an image in its file. Grey images have no channel axis there.
_STORED_SHAPES: dict[str, tuple[int, ...]] = {"mnist": (28, 28), "cifar10": (32, 32, 3)}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test part of labelled images.

    Attributes:
        name: one of `NAMES`.
        x_train: `(n, h, w, c)` float32 in [0, 1], the training images.
        y_train: `(n,)` int64 in 0..num_classes-1, the training labels.
        x_test: `(m, h, w, c)` float32 in [0, 1], the test images.
        y_test: `(m,)` int64 in 0..num_classes-1, the test labels.
        class_names: the name of each class, in the order of the labels.
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
        """The SHA-256, in hexadecimal, of each part, `"train"` and `"test"`.

        It covers the name, dtype, shape and bytes of the part's arrays.
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

    def every_test_image(self, step: int) -> "Dataset":
        """Return the data set with every `step`-th test image, from the first on."""
        return dataclasses.replace(
            self, x_test=self.x_test[::step], y_test=self.y_test[::step]
        )

    def subset(
        self, train_images: int | None = None, test_images: int | None = None
    ) -> "Dataset":
        """Return a data set of the first images of each part, in their stored order.

        Args:
            train_images: how many training images it has; None for all.
            test_images: how many test images it has; None for all.

        Returns:
            A data set whose arrays are views of those of this data set.

        Raises:
            ValueError: if a number is below 1 or there are fewer images.
        """
        for name, count, available in (
            ("train_images", train_images, len(self.y_train)),
            ("test_images", test_images, len(self.y_test)),
        ):
            if count is not None and not 1 <= count <= available:
                raise ValueError(
                    f"`{name}` must be in 1..{available} for {self.name}, or None for "
                    f"all. Received: {name}={count}"
                )
        return dataclasses.replace(
            self,
            x_train=self.x_train[:train_images],
            y_train=self.y_train[:train_images],
            x_test=self.x_test[:test_images],
            y_test=self.y_test[:test_images],
        )


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set.

    `digits` comes with scikit-learn and needs no file. `mnist` and `cifar10` are read
    from `<name>.npz` in the data directory. If there is no such file, `keras.datasets`
    downloads the data and verifies the download. The file holds `x_train`, `y_train`,
    `x_test` and `y_test`: images `(n, 28, 28)` or `(n, 32, 32, 3)`, uint8 or float in
    [0, 1]; integer labels `(n,)` or `(n, 1)`.

    Args:
        name: one of `NAMES`.
        data_dir: the data directory; None for the one that the environment variable
            `ADVENS_DATA_DIR` names, if it is set.

    Returns:
        The whole data set.

    Raises:
        ValueError: if the name is unknown or the file does not hold such arrays.
        OSError: if the directory or the file cannot be read, or the download fails.
    """
    if name not in NAMES:
        raise ValueError(f"`name` must be one of {NAMES}. Received: name={name!r}")
    directory = _directory(data_dir)
    if name == "digits":
        arrays = _load_digits()
    else:
        path = directory / f"{name}.npz" if directory else None
        stored = _read(path) if path else None
        if stored is None:
            downloaded = _download(name, path)
            arrays = _checked_arrays(name, f"keras.datasets.{name}", downloaded)
        else:
            arrays = _checked_arrays(name, str(path), stored)
    return Dataset(name=name, class_names=_CLASS_NAMES[name], **arrays)


def _directory(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """Return the data directory, from the argument or the environment, if any."""
    origin = "data_dir"
    if data_dir is None:
        # A variable that is empty counts as unset.
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


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Read the arrays of a data file; return None if there is no file."""
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
    # A damaged archive can raise BadZipFile, EOFError, zlib.error and others.
    except Exception as error:
        raise ValueError(
            f"{path} is not a whole .npz archive of plain arrays: {_reason(error)}. "
            "Replace the file, or remove it to have keras download the data."
        ) from error
    _require(len(arrays) == 4, path, f"the keys must be {', '.join(_ARRAYS)}", keys)
    return arrays


def _download(name: str, path: Path | None) -> dict[str, np.ndarray]:
    """Return the arrays that `keras.datasets` downloads.

    Args:
        name: name of the data set.
        path: where its file was looked for, if anywhere.
    """
    import keras

    try:
        train, test = getattr(keras.datasets, name).load_data()
    # Keras raises a bare Exception if the download fails.
    except Exception as error:
        raise OSError(
            f"keras could not download {name}: {_reason(error)}. Check the network, or "
            f"put {name}.npz, with {', '.join(_ARRAYS)}, into the directory "
            f"{path.parent if path else f'that {DATA_DIR_VARIABLE} names'}."
        ) from error
    return dict(zip(_ARRAYS, (*train, *test), strict=True))


def _load_digits() -> dict[str, np.ndarray]:
    """Return scikit-learn's digits, enlarged to 20x20 inside 28x28 as in MNIST."""
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


def _checked_arrays(
    name: str, source: str, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the arrays as a `Dataset` has them, after checking them.

    Args:
        name: name of the data set.
        source: where the arrays come from, for error messages.
        arrays: as they are stored, see `load`.
    """
    shape, last = _STORED_SHAPES[name], len(_CLASS_NAMES[name]) - 1
    expected = f"(n, {', '.join(map(str, shape))}), n >= 1"
    checked: dict[str, np.ndarray] = {}
    for part in ("train", "test"):
        x_key, y_key = f"x_{part}", f"y_{part}"
        x, y = arrays[x_key], arrays[y_key]
        fits = x.shape[1:] == shape and len(x) > 0
        _require(fits, source, f"`{x_key}` must have the shape {expected}", x.shape)
        # The min and max of an array with a NaN are NaN, and no comparison holds.
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


def _span(array: np.ndarray) -> str:
    """Return an array's dtype and, if it holds real numbers, their range."""
    if array.dtype.kind not in "iuf":
        return str(array.dtype)
    return f"{array.dtype} from {array.min()} to {array.max()}"


def _require(fits: bool, source: str | Path, rule: str, received: object) -> None:
    """Raise a `ValueError` unless the data fit a rule."""
    if not fits:
        raise ValueError(
            f"{source}: {rule}. Received: {received}. Correct the file, or remove it "
            "to have keras download the data."
        )


def _reason(error: Exception) -> str:
    """Return the type and the message of an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
