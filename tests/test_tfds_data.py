"""A stand-in for `tensorflow_datasets` has what `read_tfds` calls of the package."""

import sys
import types

import numpy as np
import pytest

from advens import datasets
from advens.auditing.data import load_dataset


class Feature:
    def __init__(self, names=()):
        self.names = list(names)


class Image(Feature):
    """Of images."""


class ClassLabel(Feature):
    """Of labels."""


class Builder:
    name = "trees"

    def __init__(self, keys=("image", "label"), splits=("train", "test"), sizes=(9,)):
        self.sizes = sizes
        self.info = types.SimpleNamespace(
            features={
                "image": Image(),
                "label": ClassLabel(["oak", "elm"]),
                "text": Feature(),
            },
            supervised_keys=keys,
            splits=dict.fromkeys(splits),
        )

    def download_and_prepare(self):
        pass

    def as_dataset(self, *, split, as_supervised):
        assert as_supervised
        for i in range(4 if split == "train" else 2):
            size = self.sizes[i % len(self.sizes)]
            yield np.full((size, 8, 3), 51 * i, np.uint8), np.int64(i % 2)


class NoNetwork(Builder):
    def download_and_prepare(self):
        raise ConnectionError("no route\nto host")


class Floats(Builder):
    def as_dataset(self, **options):
        return ((x / 255, y) for x, y in super().as_dataset(**options))


@pytest.fixture
def tfds(monkeypatch):
    """Return the stand-in; its data sets are those in `builders`."""
    module = types.ModuleType("tensorflow_datasets")
    module.features = types.SimpleNamespace(Image=Image, ClassLabel=ClassLabel)
    module.as_numpy = iter
    module.builders = {"trees/small:1.0.0": Builder()}

    def builder(name, data_dir):
        module.data_dir = data_dir
        if name not in module.builders:
            raise ValueError(f"Dataset {name} not found.\nAvailable: trees")
        return module.builders[name]

    module.builder = builder
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_data_set_of_tensorflow_datasets(tfds, tmp_path, monkeypatch):
    # It names the directory of other files.
    monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(tmp_path))
    data = datasets.load("tfds:trees/small:1.0.0")
    assert tfds.data_dir is None
    assert data.name == "tfds_trees_small_1_0_0"
    assert data.class_names == ("oak", "elm")
    assert data.x_train.shape == (4, 9, 8, 3) and data.x_train.dtype == np.float32
    np.testing.assert_allclose(data.x_train[:, 0, 0, 0], [0, 0.2, 0.4, 0.6], rtol=1e-6)
    assert data.y_train.tolist() == [0, 1, 0, 1] and data.y_test.tolist() == [0, 1]
    x, y = load_dataset("tfds:trees/small:1.0.0", data_dir=str(tmp_path), images=1)
    assert x.shape == (1, 9, 8, 3) and y.tolist() == [0]
    assert tfds.data_dir == tmp_path


@pytest.mark.parametrize(
    ("builder", "error"),
    [
        (None, r"does not have 'a' \(ValueError: Dataset a not found\. Available: tr"),
        (Builder(keys=None), "tfds:a must be a classification data set.*None"),
        (Builder(keys=("image", "text")), "classification data set.*'text'"),
        (Builder(splits=("train", "validation")), "Received: .*validation, no test"),
        (Builder(sizes=(9, 7)), r"of one size. Received: \(9, 8, 3\) and \(7, 8, 3\)"),
        (Floats(), "images of uint8 in train. Received: float64"),
        (NoNetwork(), r"could not prepare a \(ConnectionError: no route to host\)"),
    ],
)
def test_what_cannot_be_taken(tfds, builder, error):
    if builder:
        tfds.builders["a"] = builder
    with pytest.raises((OSError, ValueError), match=error):
        datasets.load("tfds:a")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(RuntimeError, match="pip install tensorflow-datasets"):
        datasets.load("tfds:trees")
