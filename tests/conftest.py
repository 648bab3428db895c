"""Small ensembles: linear members with known weights, and convolutional members."""

import os
import tempfile
from pathlib import Path

# ruff: noqa: E402
# These must be set before TensorFlow and JAX are imported. As `process.use_onednn`:
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# JAX compiles a program once, even if several tests and processes need it.
_COMPILED = tempfile.TemporaryDirectory()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# These small programs take longer to compile than to run: optimize them less.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import numpy as np
import pytest
from keras import layers

from advens import process
from advens.models.ensemble import Ensemble

# As the scripts do:
process.keep_memory()

# Here the backend does what is tested for both elsewhere: CI runs each of these on one,
# so that both suites take as long.
_ON_TENSORFLOW = ("reproduce/", "test_docs", "test_release")
_ON_JAX = (
    *(
        "evaluation/test_outcomes",
        "evaluation/test_statistics",
        "evaluation/test_stored",
    ),
    *(f"auditing/test_{name}" for name in ("browser", "charts", "command", "compare")),
    *(f"auditing/test_{name}" for name in ("data", "explain", "files", "gallery")),
    *("auditing/test_report", "auditing/test_sanity", "storage/", "strauss2017/"),
    *("test_datasets", "test_package", "test_program", "test_progress"),
    "test_tfds_data",
)


def pytest_collection_modifyitems(items):
    """Mark the tests that one backend is enough for."""
    root = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(root).as_posix()
        if name.startswith(_ON_TENSORFLOW):
            item.add_marker(pytest.mark.on_tensorflow)
        if name.startswith(_ON_JAX):
            item.add_marker(pytest.mark.on_jax)


# Of shape (members, pixels, classes).
KERNELS = np.array(
    [
        [[1, -1, 0], [0, 2, -1], [-2, 0, 1], [1, 1, -1.5]],
        [[-1, 0, 0.5], [2, -1, 0], [0, 1, -2], [0.5, -1, 1]],
        [[0, 1, 2], [-1, 0, 1], [1, -2, 0], [-0.5, 1, 0]],
    ],
    "float32",
)
BIASES = np.array([[0, 0.5, -0.5], [0.25, 0, 0], [-0.5, 0, 0.5]], "float32")


def member(*body, kernel, bias, shape, ending):
    """Build a classifier whose last weights are given, with one of three endings."""
    softmax = "softmax" if ending == "dense softmax" else None
    model = keras.Sequential([keras.Input(shape), *body, layers.Flatten()])
    model.add(layers.Dense(kernel.shape[-1], activation=softmax, name="last"))
    if ending == "softmax":
        model.add(layers.Softmax())
    model.get_layer("last").set_weights([kernel, bias])
    return model


@pytest.fixture
def linear():
    """Return an ensemble of `softmax(x @ kernel + bias)`, its kernels and biases."""
    endings = ("softmax", "dense softmax", "logits")
    members = [
        member(kernel=kernel, bias=bias, shape=(2, 2, 1), ending=ending)
        for kernel, bias, ending in zip(KERNELS, BIASES, endings, strict=True)
    ]
    return Ensemble(members), KERNELS.astype("float64"), BIASES.astype("float64")


@pytest.fixture(scope="session")
def convs():
    """Return an ensemble of three smooth convolutional members; do not change it."""
    rng = np.random.default_rng(5)
    members = []
    for ending in ("softmax", "dense softmax", "logits"):
        conv = layers.Conv2D(3, 2, activation="tanh", name="conv")
        # Gradients only have the expected values if attacks turn the dropout off.
        body = (conv, layers.Dropout(0.5))
        last = rng.normal(size=(48, 4)), rng.normal(size=4)
        members.append(
            member(*body, kernel=last[0], bias=last[1], shape=(5, 5, 2), ending=ending)
        )
        conv.set_weights([rng.normal(size=(2, 2, 2, 3)), rng.normal(size=3)])
    return Ensemble(members)


@pytest.fixture
def images():
    """Return six images for `convs`, with labels of which it predicts some."""
    x = np.random.default_rng(6).uniform(size=(6, 5, 5, 2)).astype("float32")
    return x, np.array([0, 1, 2, 3, 0, 1])
