"""Labelled images to audit, from a file or a data set. Needs no Keras."""

from pathlib import Path
from typing import Final

import numpy as np
from scipy import stats

from advens import datasets
from advens.arrays import Images, Labels
from advens.checks import check_count, check_positive, checked_images
from advens.dataset_files import read_npz_file
from advens.storage.files import explained

_NAMES: Final = (("x", "y"), ("x_test", "y_test"))
# So small that a fair choice of images is practically never refused.
_UNFAIR: Final = 1e-9


def load_file(
    path: Path, *, images: int | None = None, scale: float | None = None
) -> tuple[Images, Labels]:
    """Load images and labels from an npz file.

    Args:
        path: the file. Its arrays `x` and `y`, or `x_test` and `y_test`, are images and
            labels, `(n,)` or `(n, 1)`.
        images: take the first so many; None for all.
        scale: divide the images by it; None for images in [0, 1].

    Returns:
        `(n, h, w, c)` float32 in [0, 1], and `(n,)` int64.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it does not hold such arrays, has fewer images, or its first
            images are of other classes than the rest.
    """
    if images is not None:
        check_count("images", images)
    if scale is not None:
        check_positive("scale", scale)
    stored_x, stored_y = _arrays(path)
    try:
        x, y = checked_images(
            _scaled(stored_x[:images], scale), stored_y[:images], attacked=True
        )
        if images is not None:
            _check_fair(images, y, stored_y.reshape(-1)[images:])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return x.astype(np.float32), y.astype(np.int64)


def load_dataset(
    name: str, *, data_dir: str | None = None, images: int | None = None
) -> tuple[Images, Labels]:
    """Load test images and labels of a data set, see `datasets.load`.

    Args:
        name: see `datasets.CHOICES`.
        data_dir: the directory of its file.
        images: take the first so many; None for all.
    """
    dataset = datasets.load(name, data_dir=data_dir)
    try:
        dataset = dataset.subset(test_images=images)
    except ValueError as error:
        available = len(dataset.y_test)
        raise ValueError(
            f"`images` must be from 1 to {available} for {name}. Received: "
            f"images={images}"
        ) from error
    return dataset.x_test, dataset.y_test


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        names, found = read_npz_file(path, [name for pair in _NAMES for name in pair])
    except OSError as error:
        raise explained(error, "read", path) from error
    pairs = [pair for pair in _NAMES if set(pair) <= set(names)]
    arrays = [found[name] for pair in pairs for name in pair]
    if len(pairs) != 1 or not all(array.ndim for array in arrays):
        raise ValueError(
            f"{path} must hold the arrays x and y, or x_test and y_test, images and "
            f"their labels. Received: {', '.join(names) or 'none'}"
        )
    x, y = arrays
    return x, y


def _scaled(x: np.ndarray, scale: float | None) -> np.ndarray:
    if x.dtype.kind not in "iuf" or x.size == 0:
        return x  # which is refused
    if scale is not None:
        return x / np.float32(scale)
    if x.min() >= 0 and 1 < x.max() < np.inf:
        raise ValueError(
            "The images must be floats in [0, 1], as the models take them. Received: "
            f"{x.dtype} from {x.min()} to {x.max()}. --scale=255 divides them by 255"
        )
    return x


def _check_fair(images: int, first: Labels, rest: Labels) -> None:
    """Raise a `ValueError` if the first images cannot stand for all, as if sorted.

    Args:
        images: how many are wanted.
        first: the labels of the first so many.
        rest: all other labels.
    """
    if len(first) < images:
        raise ValueError(
            f"`images` must be from 1 to {len(first)}. Received: images={images}"
        )
    classes, indices = np.unique(np.concatenate([first, rest]), return_inverse=True)
    if len(classes) == 1 or len(rest) == 0:
        return
    counts = [
        np.bincount(part, minlength=len(classes))
        for part in (indices[:images], indices[images:])
    ]
    if stats.chi2_contingency(counts, correction=False).pvalue < _UNFAIR:
        raise ValueError(
            f"The first {images} images are of other classes than the rest, as if they "
            "were sorted. Shuffle the file, or leave out --images"
        )
