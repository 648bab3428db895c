"""The data sets of TensorFlow Datasets, the package `tensorflow_datasets`."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from advens import program
from advens.dataset_files import ARRAYS

if TYPE_CHECKING:
    from collections.abc import Mapping

Arrays = dict[str, np.ndarray]


def read_tfds(
    name: str, *, data_dir: str | os.PathLike[str] | None
) -> tuple[Arrays, tuple[str, ...]]:
    """Return the images and labels of a data set, and the names of its classes.

    Args:
        name: as `tensorflow_datasets.load` takes it: `NAME` or `NAME/config`.
        data_dir: the package's directory of prepared data sets; None for its own.

    Returns:
        The arrays, in the order in which the package reads them: images `(n, h, w, c)`
        uint8, labels `(n,)`.

    Raises:
        ValueError: if it does not know the name, or if these are no images of one size,
            each with a class, in a training and a test part.
        OSError: if the data set cannot be downloaded or prepared.
        RuntimeError: if the package is not installed.
    """
    program.import_keras()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise RuntimeError(
            "tfds:NAME needs the package tensorflow_datasets: pip install "
            f"tensorflow-datasets ({program.reason(error)})"
        ) from error
    from advens import backend

    backend.keep_tensorflow_off_gpus()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # it raises errors with no common base class
        raise ValueError(
            f"tensorflow_datasets does not have {name!r} ({program.reason(error)})"
        ) from error
    keys = builder.info.supervised_keys
    if not _is_classification(tfds, builder.info.features, keys):
        raise ValueError(
            f"tfds:{name} must be a classification data set: images, each with a class."
            f" Received: one whose inputs and targets are {keys}"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise OSError(
            f"tensorflow_datasets could not prepare {name} ({program.reason(error)}). "
            "Check the network, or let `data_dir` be a directory in which it is "
            "prepared"
        ) from error
    if missing := {"train", "test"} - {*builder.info.splits}:
        raise ValueError(
            f"tfds:{name} must have the splits train and test. Received: "
            f"{', '.join(builder.info.splits)}, no {missing.pop()}"
        )
    parts = [_part(tfds, builder, split) for split in ("train", "test")]
    arrays = dict(zip(ARRAYS, (*parts[0], *parts[1]), strict=True))
    return arrays, tuple(builder.info.features[keys[1]].names)


def _is_classification(tfds: Any, features: "Mapping[str, Any]", keys: Any) -> bool:
    if not isinstance(keys, tuple) or len(keys) != 2:
        return False
    kinds = tfds.features.Image, tfds.features.ClassLabel
    return all(
        isinstance(key, str) and isinstance(features[key], kind)
        for key, kind in zip(keys, kinds, strict=True)
    )


def _part(tfds: Any, builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a split."""
    images: list[np.ndarray] = []
    labels: list[np.integer] = []
    # Not in batches, for which images of several sizes are padded.
    examples = builder.as_dataset(split=split, as_supervised=True)
    for image, label in tfds.as_numpy(examples):
        if images and image.shape != images[0].shape:
            raise ValueError(
                f"tfds:{builder.name} must have images of one size. Received: "
                f"{images[0].shape} and {image.shape}"
            )
        images.append(image)
        labels.append(label)
    if not images or images[0].dtype != np.uint8:
        received = images[0].dtype if images else "none"
        raise ValueError(
            f"tfds:{builder.name} must have images of uint8 in {split}. Received: "
            f"{received}"
        )
    return np.stack(images), np.array(labels)
