"""What all scripts share: how they start, how they fail, what they print."""

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from absl import app, flags

from advens import program

if TYPE_CHECKING:
    from rich.console import Console

FLAGS: Final = flags.FLAGS

program.define_flags()


def main(reproduce: Callable[[], None]) -> None:
    """Parse the flags and call `reproduce`; on bad input, print one line and exit 1."""
    program.start()
    # It would report every glyph that a PDF embeds.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    for name in ("quiet", "verbose"):  # for --help
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = FLAGS(argv)
        except flags.Error as error:
            program.fail(error)
        if len(rest) > 1:
            program.fail(
                "Arguments must be flags, such as --dataset=mnist. "
                f"Received: {' '.join(rest[1:])}"
            )
        return rest

    def guarded(_: list[str]) -> None:
        with program.running(verbose=FLAGS.verbose):
            reproduce()

    app.run(guarded, flags_parser=parse)


def console() -> "Console":
    """Return a console for results, as wide as a table even without a terminal."""
    from rich.console import Console

    return Console(width=max(124, Console().width), quiet=FLAGS.quiet)


def print_written(paths: Iterable[Path]) -> None:
    """Print the paths of the files that were written."""
    for path in paths:
        print(f"wrote {path}")
