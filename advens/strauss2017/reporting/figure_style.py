"""What the figures have in common: for which page they are drawn, fonts, titles."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

# Inches: both columns of a page on a screen, and one.
PAGE_WIDTH: Final = 7.0
COLUMN_WIDTH: Final = 3.5


@dataclasses.dataclass(frozen=True)
class Style:
    """The page that a figure is drawn for.

    Attributes:
        width: inches; None for the width that each figure has on a screen.
        narrow: whether panels stand below each other, as beside each other they would
            be too small.
        font_size: points.
        small: points: the smallest font.
    """

    width: float | None = None
    narrow: bool = False
    font_size: float = 7
    small: float = 6

    @property
    def in_print(self) -> bool:
        """Whether the figure stands in a paper: its caption has what a title has."""
        return self.width is not None

    @property
    def wide(self) -> bool:
        """Whether the figure spans a page of a paper."""
        return self.in_print and not self.narrow

    @property
    def settings(self) -> dict[str, object]:
        """What matplotlib's `style.context` takes."""
        return {
            "font.size": self.font_size,
            "axes.titlesize": self.font_size,
            "figure.titlesize": self.font_size,
            "axes.linewidth": 0.5,
            "axes.axisbelow": True,
            "grid.linewidth": 0.4,
            "hatch.linewidth": 0.5,
            "pdf.fonttype": 42,  # TrueType, which journals ask for, instead of Type 3
            "pgf.texsystem": "pdflatex",
            "pgf.rcfonts": False,  # those of the document
            "svg.hashsalt": "advens",  # the same names of its parts in every run
        }

    def with_notes(
        self, title: str, deviations: Sequence[str], *, width: int, note: str = ""
    ) -> str:
        """Return a title with lines below it that say what to keep in mind.

        In print they are in the caption instead, see `captions`.

        Args:
            title: the first line.
            deviations: in what the run differs from the paper's, see `Run.deviations`.
            width: the largest number of characters in each further line.
            note: what else is to be said.
        """
        lines = [title]
        if self.in_print:
            return title
        if deviations:
            difference = f"differs from the paper: {', '.join(deviations)}"
            lines += textwrap.wrap(difference, width)
        return "\n".join([*lines, *textwrap.wrap(note, width)])


SCREEN: Final = Style()
# The widths are those of ICML's style: a column, and both with the gap between them.
STYLES: Final[Mapping[str, Style]] = {
    "screen": SCREEN,
    "one_column": Style(3.25, narrow=True),
    "two_columns": Style(6.75, font_size=7.5, small=6.5),
}
