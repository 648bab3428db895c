"""What all scripts share: how they start, how they fail, what they print."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from advens import program

if TYPE_CHECKING:
    from rich.console import Console


def main(reproduce: Callable[[], None]) -> None:
    """Parse the flags and call `reproduce`; on bad input, print one line and exit 1."""
    program.start()
    # It would report every glyph that a PDF embeds.
    logging.getLogger("fontTools").setLevel(logging.WARNING)

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
        except flags.Error as error:
            program.fail(error)
        if len(rest) > 1:
            program.fail(
                f"Arguments must be flags, as --name=value. Received: {rest[1:]}"
            )
        return rest

    def guarded(_: list[str]) -> None:
        with program.errors_in_one_line():
            reproduce()

    app.run(guarded, flags_parser=parse)


def console() -> "Console":
    """Return a console that is wide enough for a table even without a terminal."""
    from rich.console import Console

    return Console(width=max(124, Console().width))


def print_written(paths: Iterable[Path]) -> None:
    """Print the paths of the files that were written."""
    for path in paths:
        print(f"wrote {path}")
