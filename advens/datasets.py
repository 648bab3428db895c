"""The data sets: `load(name)` returns images in [0, 1] and integer labels.

A user's own data set is the path of an .npz file, or `tfds:` before a name that
TensorFlow Datasets knows.
"""

import dataclasses
import functools
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from advens.dataset_files import (
    ARRAYS,
    checked_arrays,
    read_arrays,
    reason,
    require,
    span,
)
from advens.tfds_data import read_tfds

NAMES = ("digits", "mnist", "cifar10", "fashion_mnist")
_DISPLAY_NAMES = {
    "digits": "Digits",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "fashion_mnist": "Fashion-MNIST",
}
DATA_DIR_VARIABLE = "ADVENS_DATA_DIR"
_TFDS = "tfds:"
CHOICES = (
    f"{', '.join(NAMES)}, the path of an .npz file, or {_TFDS}NAME, a data set of "
    "TensorFlow Datasets"
)

_NUMERALS = tuple("0123456789")
_CLASS_NAMES = {
    "digits": _NUMERALS,
    "mnist": _NUMERALS,
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    "fashion_mnist": (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
}
# The shape of an image in its file. Grey images have no channel axis there.
_STORED_SHAPES: dict[str, tuple[int, ...]] = {
    "mnist": (28, 28),
    "cifar10": (32, 32, 3),
    "fashion_mnist": (28, 28),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test part of labelled images.

    Attributes:
        name: one of `NAMES`; that of the file without its ending; or that of TensorFlow
            Datasets, such as `tfds_svhn_cropped`. It can be part of a file's name.
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
                    f"`{name}` must be from 1 to {available} for {self.name}, or None "
                    f"for all. Received: {name}={count}"
                )
        return dataclasses.replace(
            self,
            x_train=self.x_train[:train_images],
            y_train=self.y_train[:train_images],
            x_test=self.x_test[:test_images],
            y_test=self.y_test[:test_images],
        )


def display_name(name: str) -> str:
    """Return what a reader calls a data set."""
    return _DISPLAY_NAMES.get(name, name)


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set.

    `digits` comes with scikit-learn and needs no file. The others are read from
    `<name>.npz` in the data directory. If there is no such file, `keras.datasets`
    downloads the data and verifies the download. The file holds `x_train`, `y_train`,
    `x_test` and `y_test`: images `(n, h, w)` or `(n, h, w, c)`, uint8 or float in
    [0, 1]; integer labels `(n,)` or `(n, 1)`. So does the file of an own data set. Its
    classes are those of its training labels.

    Args:
        name: one of `NAMES`; the path of an own data set, which ends in .npz; or
            `tfds:NAME` or `tfds:NAME/config`, see `read_tfds`.
        data_dir: the data directory; None for the one that the environment variable
            `ADVENS_DATA_DIR` names, if it is set. For `tfds:NAME` the directory of
            TensorFlow Datasets; None for its own.

    Returns:
        The whole data set.

    Raises:
        ValueError: if the name is unknown or the data are not of this kind.
        OSError: if the directory or the file cannot be read, or the download fails.
        RuntimeError: if TensorFlow Datasets is not installed.
    """
    if not is_name(name):
        raise ValueError(f"A data set must be {CHOICES}. Received: {name!r}")
    if name.startswith(_TFDS):
        return _load_tfds(name, None if data_dir is None else _directory(data_dir))
    if name.endswith(".npz"):
        return _load_own(Path(name))
    directory = _directory(data_dir)
    if name == "digits":
        arrays = _load_digits()
    else:
        path = directory / f"{name}.npz" if directory else None
        stored = read_arrays(path) if path else None
        if stored is None:
            downloaded = _download(name, path)
            stored, path = downloaded, Path(f"keras.datasets.{name}")
        shape, num_classes = _STORED_SHAPES[name], len(_CLASS_NAMES[name])
        arrays = checked_arrays(str(path), stored, shape, num_classes)
    return Dataset(name=name, class_names=_CLASS_NAMES[name], **arrays)


def is_name(name: str) -> bool:
    """Return whether `load` takes a name, see `CHOICES`."""
    return name in NAMES or name.endswith(".npz") or name.startswith(_TFDS)


def name_in_files(name: str) -> str:
    """Return `Dataset.name` of what `load` returns for a name, without loading it."""
    return Path(name).stem if name.endswith(".npz") else re.sub(r"[^\w-]", "_", name)


def _load_own(path: Path) -> Dataset:
    if path.stem in NAMES or not re.fullmatch(r"\w[\w-]*", path.stem):
        raise ValueError(
            "The file of an own data set must have a name of letters, digits, - and _, "
            f"other than {', '.join(NAMES)}. Received: {path}"
        )
    arrays = read_arrays(path)
    if arrays is None:
        raise FileNotFoundError(f"There is no file {path}. Correct its name")
    x, y = arrays["x_train"], arrays["y_train"]
    require(x.ndim in (3, 4), path, "`x_train` must be (n, h, w[, c])", x.shape)
    fits = y.dtype.kind in "iu" and y.size > 0 and y.max() >= 1
    require(fits, path, "`y_train` must hold the integers of two classes", span(y))
    num_classes = int(y.max()) + 1
    missing = sorted({*range(num_classes)} - {*np.unique(y).tolist()})
    rule = f"`y_train` must hold every class from 0 to {num_classes - 1}"
    require(not missing, path, rule, f"no image of class {missing[:1]}")
    return Dataset(
        name=path.stem,
        class_names=tuple(map(str, range(num_classes))),
        **checked_arrays(str(path), arrays, x.shape[1:], num_classes),
    )


def _load_tfds(name: str, data_dir: Path | None) -> Dataset:
    arrays, class_names = read_tfds(name.removeprefix(_TFDS), data_dir=data_dir)
    shape = arrays["x_train"].shape[1:]
    return Dataset(
        name=name_in_files(name),
        class_names=class_names,
        **checked_arrays(name, arrays, shape, len(class_names)),
    )


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
            f"`{origin}` must be an existing directory, or be left out to have the "
            f"data downloaded. Received: {origin}={os.fspath(data_dir)!r}"
        )
    return Path(directory)


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
            f"Keras could not download {name} ({reason(error)}). Check the network, or "
            f"put {name}.npz, with {', '.join(ARRAYS)}, into the directory "
            f"{path.parent if path else f'that {DATA_DIR_VARIABLE} names'}"
        ) from error
    return dict(zip(ARRAYS, (*train, *test), strict=True))


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
