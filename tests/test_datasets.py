import hashlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits

from advens import datasets

REAL_DATA_DIR = os.environ.get("ADVENS_DATA_DIR")
SHAPES = {"mnist": (28, 28), "cifar10": (32, 32, 3)}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("ADVENS_DATA_DIR", raising=False)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://example.org:\n None -- no route")

    for name in SHAPES:
        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", fail)


def fake_arrays(name="mnist", **replaced):
    rng = np.random.default_rng(7)
    arrays = {
        "x_train": rng.integers(0, 256, (6, *SHAPES[name]), dtype=np.uint8),
        "y_train": np.array([3, 0, 9, 1, 1, 4], np.uint8),
        "x_test": rng.integers(0, 256, (2, *SHAPES[name]), dtype=np.uint8),
        "y_test": np.array([9, 0], np.uint8),
    }
    return arrays | replaced


def write(directory, name="mnist", **replaced):
    path = directory / f"{name}.npz"
    np.savez(path, **fake_arrays(name, **replaced))
    return path


def let_keras_download(monkeypatch, name, **replaced):
    arrays = fake_arrays(name, **replaced)
    train, test = (
        (arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")
    )
    module = getattr(keras.datasets, name)
    monkeypatch.setattr(module, "load_data", lambda: (train, test))


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture
def mnist(tmp_path):
    write(tmp_path)
    return datasets.load("mnist", data_dir=tmp_path)


def test_digits_shapes_and_split(digits):
    assert digits.x_train.shape == (1437, 28, 28, 1)
    assert digits.x_test.shape == (360, 28, 28, 1)
    assert digits.x_train.dtype == digits.x_test.dtype == np.float32
    assert digits.y_train.dtype == digits.y_test.dtype == np.int64
    counts = np.bincount(load_digits().target)
    assert_array_equal(np.bincount(digits.y_train) + np.bincount(digits.y_test), counts)
    # A stratified split leaves each class its share, to within one image.
    assert_allclose(np.bincount(digits.y_test), counts * 360 / 1797, rtol=0, atol=1)
    assert digits.input_shape == (28, 28, 1)
    assert digits.num_classes == 10
    assert digits.class_names == tuple("0123456789")


def means_of_four(x):
    """Return the pixels that are the mean of 2x2 pixels of the 8x8 digit.

    Each is a multiple of 1/64. Counted from the edge of the enlarged digit, pixel
    2 + 5k lies half way between the original pixels 2k and 2k + 1.
    """
    return x[:, 6:24:5, 6:24:5, 0]


def test_digits_are_enlarged_bilinearly_and_centred(digits):
    original = load_digits()
    sums = original.images.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4))
    labels = {
        total.astype(int).tobytes(): label
        for total, label in zip(sums, original.target, strict=True)
    }
    border = np.ones((28, 28), bool)
    border[4:24, 4:24] = False
    for x, y in ((digits.x_train, digits.y_train), (digits.x_test, digits.y_test)):
        assert x.min() == 0
        assert x.max() == 1
        assert not x[:, border].any()
        sums = np.round(means_of_four(x) * 64)
        assert_allclose(means_of_four(x) * 64, sums, rtol=0, atol=1e-4)
        assert_array_equal([labels[total.astype(int).tobytes()] for total in sums], y)


def test_digits_are_the_same_every_time(digits):
    assert datasets.load("digits").checksums == digits.checksums


@pytest.mark.parametrize("name", SHAPES)
def test_stored_images_are_scaled_and_get_a_channel_axis(tmp_path, name):
    arrays = fake_arrays(name)
    write(tmp_path, name)
    data = datasets.load(name, data_dir=tmp_path)
    channels = 3 if name == "cifar10" else 1
    assert data.name == name
    assert data.input_shape == (*SHAPES[name][:2], channels)
    assert data.num_classes == 10
    for part in ("train", "test"):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        raw = arrays[f"x_{part}"].reshape(x.shape)
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert_allclose(x, raw / 255.0, rtol=0, atol=1e-7)
        assert_array_equal(y, arrays[f"y_{part}"])
    if name == "cifar10":
        assert data.class_names[:4] == ("airplane", "automobile", "bird", "cat")
        assert data.class_names[9] == "truck"


def test_floats_and_label_columns_are_accepted(tmp_path, mnist):
    raw = fake_arrays()
    write(
        tmp_path,
        x_train=raw["x_train"] / 255.0,
        x_test=raw["x_test"] / np.float32(255),
        y_train=raw["y_train"][:, None].astype(np.int32),
        notes=np.array(["further keys are allowed"]),
    )
    data = datasets.load("mnist", data_dir=tmp_path)
    assert_array_equal(data.y_train, mnist.y_train)
    assert_allclose(data.x_train, mnist.x_train, rtol=0, atol=1e-7)


def test_the_argument_takes_precedence_over_the_environment(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write(first, y_test=np.array([1, 1]))
    write(second, y_test=np.array([2, 2]))
    monkeypatch.setenv("ADVENS_DATA_DIR", str(second))
    assert_array_equal(datasets.load("mnist").y_test, [2, 2])
    assert_array_equal(datasets.load("mnist", data_dir=str(first)).y_test, [1, 1])


def test_data_without_a_file_are_downloaded(tmp_path, monkeypatch):
    labels = np.array([[3], [0], [9], [1], [1], [4]])
    let_keras_download(monkeypatch, "cifar10", y_train=labels)
    for data_dir in (None, tmp_path):
        data = datasets.load("cifar10", data_dir=data_dir)
        assert data.x_test.shape == (2, 32, 32, 3)
        assert_array_equal(data.y_train, [3, 0, 9, 1, 1, 4])
        assert_array_equal(data.y_test, [9, 0])
    monkeypatch.setenv("ADVENS_DATA_DIR", "")
    assert datasets.load("cifar10").checksums == data.checksums


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_failed_download_says_what_to_do(tmp_path):
    with pytest.raises(OSError, match="could not download mnist") as error:
        datasets.load("mnist")
    text = message(error)
    assert "URL fetch failure on https://example.org: None -- no route" in text
    assert "into the directory that ADVENS_DATA_DIR names" in text
    with pytest.raises(OSError, match="could not download cifar10") as error:
        datasets.load("cifar10", data_dir=tmp_path)
    assert f"into the directory {tmp_path}" in message(error)


def test_unsuitable_download_is_reported_as_such(monkeypatch):
    images = np.zeros((6, 1, 28, 28), np.uint8)
    let_keras_download(monkeypatch, "mnist", x_train=images)
    with pytest.raises(ValueError, match=r"keras\.datasets\.mnist: `x_train`") as error:
        datasets.load("mnist")
    assert "Received: (6, 1, 28, 28)" in message(error)


def test_unknown_name():
    with pytest.raises(ValueError, match="A data set must be digits, mnist") as error:
        datasets.load("svhn")
    assert "the path of an .npz file, or tfds:NAME" in message(error)
    assert "Received: 'svhn'" in message(error)


@pytest.mark.parametrize("name", datasets.NAMES)
@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_data_dir_must_be_a_directory(tmp_path, name, kind):
    path = {"missing": str(tmp_path / "no"), "file": str(tmp_path / "f"), "empty": ""}
    (tmp_path / "f").touch()
    with pytest.raises(NotADirectoryError, match="must be an existing dir") as error:
        datasets.load(name, data_dir=path[kind])
    assert message(error).endswith(f"Received: data_dir={path[kind]!r}")


def test_environment_must_name_a_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVENS_DATA_DIR", str(tmp_path / "no"))
    with pytest.raises(NotADirectoryError, match="`ADVENS_DATA_DIR` must be") as error:
        datasets.load("mnist")
    assert message(error).endswith(f"Received: ADVENS_DATA_DIR='{tmp_path / 'no'}'")


def test_unreadable_file(tmp_path, monkeypatch):
    def deny(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    write(tmp_path)
    monkeypatch.setattr(np, "load", deny)
    with pytest.raises(OSError, match=r"Cannot read .*mnist\.npz: Perm") as error:
        datasets.load("mnist", data_dir=tmp_path)
    assert "Make it a readable file" in message(error)


def test_directory_in_place_of_the_file(tmp_path):
    (tmp_path / "mnist.npz").mkdir()
    with pytest.raises(OSError, match=r"Cannot read .*mnist\.npz: Is a dir") as error:
        datasets.load("mnist", data_dir=tmp_path)
    assert "Make it a readable file" in message(error)


def corrupt(path, how):
    content = path.read_bytes()
    if how == "objects":
        arrays = fake_arrays(y_test=np.array([9, None], object))
        np.savez(path, allow_pickle=True, **arrays)
    elif how == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        middle = len(content) // 2
        flipped = bytes(255 - b for b in content[middle : middle + 50])
        path.write_bytes(
            {
                "empty": b"",
                "garbage": b"<html>404: not found</html>\n" * 9,
                "truncated": content[:middle],
                "flipped": content[:middle] + flipped + content[middle + 50 :],
            }[how]
        )


@pytest.mark.parametrize(
    "how", ["empty", "garbage", "truncated", "flipped", "npy", "objects"]
)
def test_damaged_file(tmp_path, how):
    path = write(tmp_path)
    corrupt(path, how)
    with pytest.raises(ValueError, match="must be a whole .npz file") as error:
        datasets.load("mnist", data_dir=tmp_path)
    assert message(error).startswith(str(path))


def test_missing_keys(tmp_path):
    path = tmp_path / "mnist.npz"
    arrays = fake_arrays()
    np.savez(path, x_train=arrays["x_train"], y_train=arrays["y_train"], test=1)
    with pytest.raises(ValueError, match="hold the arrays x_train, y_train, x_t"):
        datasets.load("mnist", data_dir=tmp_path)
    with pytest.raises(ValueError, match="Received: x_train, y_train, test") as error:
        datasets.load("mnist", data_dir=tmp_path)
    assert message(error).startswith(f"{path}: ")


GREY = np.zeros((6, 28, 28), np.float64)
LABELS = np.zeros(6, np.int64)


def with_value(array, value):
    changed = array.copy()
    changed.flat[5] = value
    return changed


@pytest.mark.parametrize(
    ("key", "array", "rule", "received"),
    [
        (
            "x_train",
            np.zeros((6, 28, 27), np.uint8),
            "shape (n, 28, 28)",
            "(6, 28, 27)",
        ),
        ("x_train", np.zeros((6, 784), np.uint8), "shape (n, 28, 28)", "(6, 784)"),
        ("x_test", np.uint8(0), "shape (n, 28, 28)", "()"),
        ("x_test", np.zeros((0, 28, 28), np.uint8), "n >= 1", "(0, 28, 28)"),
        ("x_train", GREY.astype(np.int32), "uint8, or float", "int32 from 0 to 0"),
        ("x_train", GREY.astype("U1"), "uint8, or float", "<U1"),
        ("x_train", with_value(GREY, np.nan), "without NaN", "from nan to nan"),
        ("x_train", with_value(GREY, np.inf), "in [0, 1]", "from 0.0 to inf"),
        ("x_train", with_value(GREY, 255), "in [0, 1]", "from 0.0 to 255.0"),
        ("x_train", with_value(GREY, -0.5), "in [0, 1]", "from -0.5 to 0.0"),
        ("y_train", LABELS[:5], "one label for each of 6 images", "shape (5,)"),
        ("y_train", np.eye(6, 10), "one label for each of 6", "shape (6, 10)"),
        ("y_train", LABELS.astype(float), "integers from 0 to 9", "float64"),
        ("y_train", LABELS.astype(bool), "integers from 0 to 9", "bool"),
        ("y_train", with_value(LABELS, 10), "integers from 0 to 9", "from 0 to 10"),
        ("y_train", with_value(LABELS, -1), "integers from 0 to 9", "from -1 to 0"),
    ],
)
def test_unsuitable_content(tmp_path, key, array, rule, received):
    path = write(tmp_path, **{key: array})
    with pytest.raises(ValueError, match=f"`{key}` must") as error:
        datasets.load("mnist", data_dir=tmp_path)
    text = message(error)
    assert text.startswith(f"{path}: ")
    assert rule in text.split(". Received: ")[0]
    assert received in text.split(". Received: ")[1]
    assert "Correct the data" in text


def test_checksums_cover_names_dtypes_shapes_and_bytes(mnist):
    for part in ("train", "test"):
        digest = hashlib.sha256()
        for key in (f"x_{part}", f"y_{part}"):
            array = getattr(mnist, key)
            digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        assert mnist.checksums[part] == digest.hexdigest()


def test_checksum_depends_on_every_label(tmp_path, mnist):
    write(tmp_path)
    assert datasets.load("mnist", data_dir=tmp_path).checksums == mnist.checksums
    write(tmp_path, y_test=np.array([9, 1], np.uint8))
    assert datasets.load("mnist", data_dir=tmp_path).checksums != mnist.checksums


def test_subset_keeps_the_first_images(mnist):
    subset = mnist.subset(train_images=4, test_images=1)
    assert_array_equal(subset.x_train, mnist.x_train[:4])
    assert_array_equal(subset.y_train, [3, 0, 9, 1])
    assert_array_equal(subset.x_test, mnist.x_test[:1])
    assert_array_equal(subset.y_test, [9])
    assert subset.name == mnist.name
    assert subset.class_names == mnist.class_names
    assert subset.checksums != mnist.checksums
    assert len(mnist.subset(test_images=1).y_train) == 6
    assert mnist.subset().checksums == mnist.checksums
    assert mnist.subset(train_images=6, test_images=2).checksums == mnist.checksums


@pytest.mark.parametrize(
    ("flag", "count", "available"),
    [
        ("train_images", 0, 6),
        ("train_images", 7, 6),
        ("test_images", -1, 2),
        ("test_images", 3, 2),
    ],
)
def test_subset_of_impossible_size(mnist, flag, count, available):
    with pytest.raises(ValueError, match=f"`{flag}` must be from 1 to {available} f"):
        mnist.subset(**{flag: count})
    with pytest.raises(ValueError, match=f"Received: {flag}={count}$"):
        mnist.subset(**{flag: count})


def test_dataset_is_frozen(mnist):
    with pytest.raises(AttributeError, match="cannot assign"):
        mnist.name = "other"


def test_importing_the_module_needs_no_heavy_package():
    code = (
        "import sys, advens.datasets; "
        "print({'keras', 'tensorflow', 'jax', 'sklearn', 'scipy'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "set()"


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_DATA_DIR, reason="ADVENS_DATA_DIR is not set")
@pytest.mark.parametrize("name", SHAPES)
def test_real_data(name):
    data = datasets.load(name, data_dir=REAL_DATA_DIR)
    train, test = np.bincount(data.y_train), np.bincount(data.y_test)
    if name == "mnist":
        expected = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert data.x_train.shape == (60_000, 28, 28, 1)
        assert_array_equal(test, expected)
        assert train.sum() == 60_000
    else:
        assert data.x_train.shape == (50_000, 32, 32, 3)
        assert_array_equal(train, [5000] * 10)
        assert_array_equal(test, [1000] * 10)
    assert len(data.x_test) == 10_000
    for x in (data.x_train, data.x_test):
        assert x.dtype == np.float32
        assert x.min() == 0
        assert x.max() == 1


def own(path, **replaced):
    """Write a data set of two grey images per class of seven, 24 x 20 pixels."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.random((14, 24, 20)),
        "y_train": np.arange(14) % 7,
        "x_test": rng.random((3, 24, 20)),
        "y_test": np.array([6, 0, 3]),
    }
    np.savez(path, **arrays | replaced)
    return str(path)


def test_an_own_data_set(tmp_path):
    data = datasets.load(own(tmp_path / "my-leaves.npz"))
    assert data.name == datasets.display_name(data.name) == "my-leaves"
    assert data.input_shape == (24, 20, 1)
    assert data.num_classes == 7
    assert data.class_names == tuple("0123456")
    assert data.x_train.dtype == np.float32 and data.y_test.tolist() == [6, 0, 3]
    colours = {f"x_{part}": np.zeros((n, 9, 8, 3)) for part, n in SIZES.items()}
    data = datasets.load(own(tmp_path / "b.npz", **colours))
    assert data.input_shape == (9, 8, 3)


SIZES = {"train": 14, "test": 3}


@pytest.mark.parametrize(
    ("name", "replaced", "error"),
    [
        ("mnist", {}, "a name of letters, digits, - and _, other than digits"),
        ("my data", {}, "a name of letters, digits, - and _"),
        ("a", {"y_train": np.zeros(14, int)}, "the integers of two classes"),
        ("a", {"y_train": np.ones(14, float)}, "the integers of two classes"),
        (
            "a",
            {"y_train": np.arange(14) % 7 * 2},
            "every class from 0 to 12. .*class .1",
        ),
        (
            "a",
            {"y_test": np.array([7, 0, 3])},
            "`y_test` must hold integers from 0 to 6",
        ),
        (
            "a",
            {"x_test": np.zeros((3, 20, 24))},
            r"`x_test` must have the shape .*24, 2",
        ),
        ("a", {"x_train": np.zeros((14, 480))}, r"`x_train` must be \(n, h, w"),
        ("a", {"x_train": np.full((14, 24, 20), 2.0)}, "uint8, or float in .0, 1"),
    ],
)
def test_own_data_sets_that_are_wrong(tmp_path, name, replaced, error):
    with pytest.raises(ValueError, match=error):
        datasets.load(own(tmp_path / f"{name}.npz", **replaced))


def test_an_own_data_set_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*a.npz"):
        datasets.load(str(tmp_path / "a.npz"))
