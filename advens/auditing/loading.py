"""Keras models from files, as `advens-audit` takes them. None is loaded as a pickle."""

import glob
import io
import os
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import h5py
import keras

from advens import program
from advens.auditing.saved_model import load_saved_model
from advens.models.ensemble import Ensemble
from advens.storage.files import explained

_FILES: Final = (".keras", ".h5", ".hdf5")
# How Keras says that a layer or a function is none of its own.
_UNKNOWN: Final = re.compile(r"(?:Could not locate \w+|Unknown [\w ]+:) '([^']+)'")
# What a file of weights holds besides those that a model computes with.
_STATE: Final = frozenset(("optimizer", "seed_generator", "metrics"))


def expand(patterns: Sequence[str]) -> list[Path]:
    """Return the paths of models; a pattern such as `models/*.keras` gives several.

    Raises:
        ValueError: if no file matches a pattern, or one is given twice.
    """
    paths: list[Path] = []
    for pattern in patterns:
        # A file may have a name that looks like a pattern.
        is_path = os.path.exists(pattern) or not glob.has_magic(pattern)
        matches = [pattern] if is_path else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise ValueError(f"No file matches {pattern}")
        paths += map(Path, matches)
    if twice := [str(path) for i, path in enumerate(paths) if path in paths[:i]]:
        raise ValueError(f"Each model must be named once. Received twice: {twice[0]}")
    return paths


def load_models(
    paths: Sequence[Path], *, builder: str | None = None, trust: bool = False
) -> list[keras.Model]:
    """Load Keras models.

    Args:
        paths: `.keras` files; `.h5` files; directories of SavedModels, which only
            Keras's TensorFlow backend can call. With a builder, files of weights.
        builder: `"module:function"`; the function takes no arguments and returns a
            built model. From the files only the weights are loaded then.
        trust: whether a file may hold Python code, which runs when it is loaded.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file does not hold such a model, or is damaged.
    """
    if builder is None:
        return [_model(path, trust) for path in paths]
    return [_model_with_weights(path, builder) for path in paths]


def _model(path: Path, trust: bool) -> keras.Model:
    if (path / "saved_model.pb").is_file():
        return load_saved_model(path)
    _check_file(path)
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is damaged or no .keras file: such a file is a zip archive"
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:  # Keras raises errors with no common base class
        raise ValueError(f"{path} {_problem(error)}") from error
    if isinstance(model, Ensemble):
        raise ValueError(
            f"{path} holds an ensemble. Save each of its members in a file"
        )
    return model


def _problem(error: Exception) -> str:
    """Return what is wrong with a file that Keras could not load, and what to do."""
    text = str(error)
    if "safe_mode" in text:
        return (
            "holds Python code, such as a Lambda layer, which runs when it is loaded. "
            "If you trust its author, pass --trust"
        )
    if "No model config" in text:
        return (
            "holds weights without a model. Pass --builder=module:function, a function "
            "that returns the model"
        )
    if unknown := _UNKNOWN.search(text):
        return (
            f"holds {unknown[1]!r}, which Keras does not know. Pass "
            "--builder=module:function, a function that returns the model; the file "
            "then gives the weights"
        )
    return (
        f"is damaged, or not of this version of Keras ({program.reason(error)}). Save "
        "the model again"
    )


def _model_with_weights(path: Path, builder: str) -> keras.Model:
    _check_file(path)
    model = _built(builder)
    try:
        with warnings.catch_warnings():
            # Keras warns of what it then raises an error for.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            model.load_weights(path)
        stored = _stored_parameters(path)
    except Exception as error:  # Keras and h5py raise many kinds
        raise ValueError(
            f"{path} must hold the weights of the model that {builder} returns "
            f"({program.reason(error)})"
        ) from error
    # Keras does not mind layers that the model does not have.
    if stored != model.count_params():
        raise ValueError(
            f"{path} must hold the weights of the model that {builder} returns. "
            f"Received: {stored} parameters for a model of {model.count_params()}"
        )
    return model


def _stored_parameters(path: Path) -> int:
    """Return how many parameters of a model a file holds."""
    source: Path | io.BytesIO = path
    if path.suffix == ".keras":
        source = io.BytesIO(zipfile.ZipFile(path).read("model.weights.h5"))
    sizes: list[int] = []

    def count(name: str, item: h5py.Group | h5py.Dataset) -> None:
        is_state = _STATE & set(name.split("/")) or name.startswith("optimizer_weights")
        if isinstance(item, h5py.Dataset) and not is_state:
            sizes.append(item.size)

    with h5py.File(source) as file:
        file.visititems(count)
    return sum(sizes)


def _built(builder: str) -> keras.Model:
    function = program.function_of("builder", builder)
    try:
        model = function()
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            "`builder` must name a function that is called without arguments. "
            f"Received: builder={builder!r} ({program.reason(error)})"
        ) from error
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "`builder` must name a function that returns a built Keras model. "
            f"Received: builder={builder!r}, which returns {model!r}"
        )
    return model


def _check_file(path: Path) -> None:
    """Raise an error unless a path is a file, or a directory, that Keras may read."""
    is_model = path.suffix in _FILES or (path / "config.json").is_file()
    if path.exists() and not is_model:
        raise ValueError(
            "A model must be a .keras or .h5 file, or the directory of a SavedModel; "
            f"pickled models are not loaded. Received: {path}"
        )
    try:
        if not path.is_dir():
            path.open("rb").close()
    except OSError as error:
        raise explained(error, "read", path) from error
