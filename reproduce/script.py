"""What all scripts share: how they start, how they fail, what they print."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from advens import process

if TYPE_CHECKING:
    from rich.console import Console


def main(reproduce: Callable[[], None]) -> None:
    """Parse the flags and call `reproduce`; on bad input, print one line and exit 1."""
    # Hide TensorFlow's notes, but not its errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    process.use_onednn()
    # It would report every glyph that a PDF embeds.
    logging.getLogger("fontTools").setLevel(logging.WARNING)

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
        except flags.Error as error:
            _fail(error)
        if len(rest) > 1:
            _fail(f"Arguments must be flags, as --name=value. Received: {rest[1:]}")
        return rest

    def guarded(_: list[str]) -> None:
        try:
            reproduce()
        except (OSError, RuntimeError, ValueError) as error:
            _fail(error)
        except KeyboardInterrupt:
            _fail("Interrupted. The same command continues from here.")

    app.run(guarded, flags_parser=parse)


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


def console() -> "Console":
    """Return a console that is wide enough for a table even without a terminal."""
    from rich.console import Console

    return Console(width=max(124, Console().width))


def print_written(paths: Iterable[Path]) -> None:
    """Print the paths of the files that were written."""
    for path in paths:
        print(f"wrote {path}")


def _fail(error: object) -> None:
    text = getattr(error, "strerror", None) or str(error)
    print("error:", " ".join(text.split()), file=sys.stderr)
    sys.exit(1)
