"""How a program starts, what it prints besides its results, and how it fails."""

import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from absl import flags

from advens import process

_PACKAGE: Final = "advens"


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define --quiet and --verbose, which all programs have."""
    flags.DEFINE_boolean(
        "quiet",
        False,
        "Show no progress and no results: only the names of the files that were "
        "written, warnings and errors.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "verbose",
        False,
        "Tell on standard error the settings, the backend and its devices, where the "
        "store is, what is loaded from it and what is computed; and where in the code "
        "an error was raised.",
        flag_values=values,
    )
    flags.register_multi_flags_validator(
        ["quiet", "verbose"],
        lambda given: not (given["quiet"] and given["verbose"]),
        "leave out one of them",
        flag_values=values,
    )


def start() -> None:
    """Set the environment of a program, before it imports TensorFlow."""
    # At level 2, TensorFlow reports as an error that a machine has no GPU. What does
    # fail is raised as an exception, too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    process.use_onednn()


def import_keras(*, seed: int | None = None) -> None:
    """Import Keras and its backend without their notes.

    TensorFlow 2.21 prints some while it is imported, whatever the log level. Keras
    imports it sooner or later on any backend if it is there.

    Args:
        seed: of models that are random; None to seed nothing.

    Raises:
        RuntimeError: if there is no such backend.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import keras

        with contextlib.suppress(ImportError):
            importlib.import_module("tensorflow")
        if seed is not None:
            keras.utils.set_random_seed(seed)
    except (ImportError, ValueError) as error:
        raise RuntimeError(
            f"Keras and its backend must be installed ({error}). The environment "
            "variable KERAS_BACKEND names the backend: tensorflow or jax"
        ) from error
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It would report that there is no TPU.
    logging.getLogger("jax").setLevel(logging.WARNING)


def with_keras(module: str, function: str, *args: object) -> object:
    """Call a function in a process that has not imported Keras, without its notes."""
    import_keras()
    warnings.formatwarning = _warning
    return getattr(importlib.import_module(module), function)(*args)


def function_of(flag: str, path: str) -> Callable[..., Any]:
    """Return a user's function, whose module may lie in the working directory.

    Args:
        flag: the flag that names it.
        path: `"module:function"`.

    Raises:
        ValueError: if there is no such function.
    """
    # A console script does not look for modules there.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    module, _, function = path.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"`{flag}` must be module:function, where Python finds the module or it "
            f"lies in the working directory. Received: {flag}={path!r} "
            f"({reason(error)})"
        ) from error


@contextlib.contextmanager
def running(*, verbose: bool = False) -> Iterator[None]:
    """Print errors and warnings in one line each, and exit with code 1 after an error.

    Such errors are bad input and what the system refuses. Others are faults of the
    program and raise what they raised.

    Args:
        verbose: whether to print what the package logs, and the traceback of an error.
    """
    usual = warnings.formatwarning
    warnings.formatwarning = _warning
    log, handler = logging.getLogger(_PACKAGE), _ToStderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    # absl has a handler of its own above it, and a level of its own, --verbosity.
    log.propagate = False
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if verbose:
            traceback.print_exc()
        fail(error)
    except KeyboardInterrupt:
        fail("Interrupted. The same command continues from here")
    finally:
        warnings.formatwarning = usual
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
        log.propagate = True


class _ToStderr(logging.Handler):
    """Prints to standard error, above the progress bars while these are there."""

    def emit(self, record: logging.LogRecord) -> None:
        # While a bar is shown, `sys.stderr` is another object.
        print(self.format(record), file=sys.stderr)


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return the text of a warning: one line, with the place if it is not advens's."""
    of_package = category.__module__.partition(".")[0] == _PACKAGE
    place = "" if of_package else f" ({category.__name__} at {filename}:{lineno})"
    return f"warning: {' '.join(str(message).split())}{place}\n"


def fail(error: object) -> NoReturn:
    """Print an error in one line, and exit with code 1."""
    text = getattr(error, "strerror", None) or str(error)
    print("error:", " ".join(text.split()), file=sys.stderr)
    sys.exit(1)


def reason(error: Exception) -> str:
    """Return the type and the message of an exception in one short line."""
    # Keras quotes a whole configuration before it tells the cause, and sets bold type.
    text = re.sub(r"\x1b\[\d*m", "", str(error)).rpartition("Exception encountered: ")[
        2
    ]
    return f"{type(error).__name__}: {textwrap.shorten(text, 160, placeholder=' …')}"


def check_writable(flag: str, directory: Path) -> None:
    """Raise an `OSError` if nothing can be written to the directory of a flag."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"`{flag}` must be a directory that can be written to ({error.strerror}). "
            f"Received: {flag}={str(directory)!r}"
        ) from error
