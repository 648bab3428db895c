"""What all scripts share: bad input is one line and exit code 1."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from advens import process

if TYPE_CHECKING:
    from rich.console import Console


def main(reproduce: Callable[[], None]) -> None:
    """Parse the flags and call `reproduce`; bad input is one line and exit code 1."""
    # Hide TensorFlow's notes, but not its errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    process.use_onednn()
    # Else it reports every glyph that a PDF embeds.
    logging.getLogger("fontTools").setLevel(logging.WARNING)

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
        except flags.Error as error:
            _fail(error)
        if len(rest) > 1:
            _fail(f"arguments must be flags, as --name=value. Received: {rest[1:]}")
        return rest

    def guarded(_: list[str]) -> None:
        try:
            reproduce()
        except (OSError, RuntimeError, ValueError) as error:
            _fail(error)
        except KeyboardInterrupt:
            _fail("interrupted; the same command goes on from here")

    app.run(guarded, flags_parser=parse)


def check_writable(flag: str) -> None:
    """Raise an `OSError` if the directory that a flag names cannot be written."""
    directory = Path(str(flags.FLAGS[flag].value))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"`{flag}` must be a directory that can be written ({error.strerror}). "
            f"Received: {flag}={str(directory)!r}"
        ) from error


def console() -> "Console":
    """Return a console as wide as a table, also where the output is no terminal."""
    from rich.console import Console

    return Console(width=max(124, Console().width))


def _fail(error: object) -> None:
    text = getattr(error, "strerror", None) or str(error)
    print("error:", " ".join(text.split()), file=sys.stderr)
    sys.exit(1)
