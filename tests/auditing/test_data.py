"""Images and labels from files: what is read, and what is refused."""

import pickle

import numpy as np
import pytest

from advens import datasets
from advens.auditing.data import load_dataset, load_file

X = np.random.default_rng(0).uniform(size=(40, 3, 3, 1))
Y = np.arange(40) % 4


@pytest.fixture
def path(tmp_path):
    return tmp_path / "my.npz"


@pytest.mark.parametrize("names", [("x", "y"), ("x_test", "y_test")])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_images_and_labels(path, names, dtype):
    x = X.astype(dtype)
    arrays = dict(zip(names, (x, Y.astype("uint8")[:, np.newaxis]), strict=True))
    np.savez_compressed(path, **arrays, x_train=x[:1], y_train=Y[:1])
    x_read, y_read = load_file(path)
    assert (x_read.dtype, y_read.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(x_read, x.astype("float32"))
    np.testing.assert_array_equal(y_read, Y)


def test_first_images(path):
    # Only what is audited has to be right: the file is not changed for the rest.
    np.savez(path, x=np.concatenate([X, X - 1]), y=np.concatenate([Y, Y]))
    x, y = load_file(path, images=10)
    np.testing.assert_array_equal(x, X[:10].astype("float32"))
    np.testing.assert_array_equal(y, Y[:10])


def test_scale(path):
    pixels = np.round(X * 255).astype("uint8")
    pixels[0, 0, 0, 0] = 255
    np.savez(path, x=pixels, y=Y)
    x, _ = load_file(path, scale=255)
    assert x.dtype == np.float32 and x.max() == 1
    np.testing.assert_array_equal(x, pixels / np.float32(255))
    np.savez(path, x=pixels.astype("float64"), y=Y)
    np.testing.assert_array_equal(load_file(path, scale=255)[0], x)


def test_images_in_any_order_of_classes_are_a_fair_choice(path):
    y = np.random.default_rng(1).integers(10, size=5000)
    x = np.zeros((5000, 2, 1))
    for labels in (y, y * 0, np.arange(5000) % 10, np.arange(5000)):
        np.savez(path, x=x, y=labels)
        for images in (1, 20, 500, 4999, 5000):
            assert len(load_file(path, images=images)[1]) == images


def test_sorted_images_are_no_fair_choice(path):
    np.savez(path, x=np.zeros((5000, 2, 1)), y=np.arange(5000) // 500)
    assert len(load_file(path)[1]) == 5000
    for images in (100, 500, 4500):
        with pytest.raises(ValueError, match=f"first {images} images are of other cla"):
            load_file(path, images=images)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "must hold the arrays x and y, or x_test and y_test.* Received: none"),
        ({"x": X}, "Received: x$"),
        ({"x": X, "labels": Y}, "Received: x, labels"),
        ({"x_train": X, "y_train": Y}, "Received: x_train, y_train"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y}, "Received: x, y, x_test, y_test"),
        ({"x": X, "y": np.int64(3)}, "must hold the arrays x and y"),
        ({"x": X[:0], "y": Y[:0]}, "at least one image"),
        ({"x": X * 255, "y": Y}, r"float64 from 0\..* --scale=255 divides them by 255"),
        ({"x": (X * 255).astype("uint8"), "y": Y}, "uint8 from .* --scale=255 divides"),
        ({"x": X * 2 - 1, "y": Y}, r"floats in \[0, 1\].* from -0\.9"),
        ({"x": np.where(X > 0.9, np.nan, X), "y": Y}, "floats in .* without NaN"),
        ({"x": np.where(X > 0.9, np.inf, X), "y": Y}, r"floats in \[0, 1\]"),
        ({"x": X.round().astype(int), "y": Y}, "as floats"),
        ({"x": X > 0.5, "y": Y}, "Received: bool of shape"),
        ({"x": X.astype(complex), "y": Y}, "Received: complex128 of shape"),
        ({"x": X.astype(str), "y": Y}, "as floats"),
        ({"x": X[:, 0, 0, 0], "y": Y}, "of at least two axes"),
        ({"x": X, "y": Y[:-1]}, "one integer label per image.* for 40 images"),
        ({"x": X, "y": np.eye(4)[Y]}, "not one-hot vectors.* of shape .40, 4."),
        ({"x": X, "y": Y.astype(float)}, "one integer label per image"),
        ({"x": X, "y": Y.astype(str)}, "one integer label per image"),
        ({"x": X, "y": Y.astype(object)}, "without pickles .*allow_pickle=False"),
    ],
)
def test_other_arrays_are_refused(path, arrays, message):
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        load_file(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "`images` must be an integer >= 1"),
        ({"images": 41}, "`images` must be from 1 to 40. Received: images=41"),
        ({"scale": 0}, "`scale` must be > 0"),
        ({"scale": 0.5}, r"floats in \[0, 1\]"),
    ],
)
def test_impossible_options(path, options, message):
    np.savez(path, x=X, y=Y)
    with pytest.raises(ValueError, match=message):
        load_file(path, **options)


def test_no_pickle_is_loaded(path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("the file was unpickled",)

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="without pickles .it is no zip archive"):
        load_file(path)
    np.savez(path, x=np.array([Trap()]), y=Y)
    with pytest.raises(ValueError, match="without pickles"):
        load_file(path)


def test_damaged_files(path):
    np.savez(path, x=X, y=Y)
    data = path.read_bytes()
    for position in (60, 400, len(data) // 2):
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"must be a whole \.npz file"):
            load_file(path)
    for damaged in (data[:-1], data[:500], b"", b"x,y\n1,2\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"must be a whole \.npz file"):
            load_file(path)


def test_unreadable_files(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(OSError, match=f"Cannot read {path}: ") as error:
            load_file(path)
        assert "\n" not in str(error.value)


def test_datasets():
    digits = datasets.load("digits")
    x, y = load_dataset("digits")
    np.testing.assert_array_equal(x, digits.x_test)
    np.testing.assert_array_equal(y, digits.y_test)
    x, y = load_dataset("digits", images=7)
    np.testing.assert_array_equal(x, digits.x_test[:7])
    np.testing.assert_array_equal(y, digits.y_test[:7])
    for images in (0, 361):
        with pytest.raises(ValueError, match="`images` must be from 1 to 360 for di"):
            load_dataset("digits", images=images)
