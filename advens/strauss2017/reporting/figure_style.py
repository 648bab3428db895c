"""What the figures have in common: sizes, fonts, titles and files."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib import style
from matplotlib.figure import Figure

from advens.storage.files import atomic

# Inches: both columns of a page, and one.
PAGE_WIDTH: Final = 7.0
COLUMN_WIDTH: Final = 3.5
SMALL: Final = 6  # points: the smallest font that is legible
STYLE: Final[Mapping[str, object]] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "figure.titlesize": 7,
    "axes.linewidth": 0.5,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType, which journals ask for, instead of Type 3
}


def with_notes(
    title: str, deviations: Sequence[str], *, width: int, note: str = ""
) -> str:
    """Return a title with lines below it that say what to keep in mind.

    Args:
        title: the first line.
        deviations: in what the run differs from the paper's, see `Run.deviations`.
        width: the largest number of characters in each further line.
        note: what else is to be said.
    """
    lines = [title]
    if deviations:
        difference = f"differs from the paper: {', '.join(deviations)}"
        lines += textwrap.wrap(difference, width)
    return "\n".join([*lines, *textwrap.wrap(note, width)])


def save_figure(figure: Figure, *, out_dir: Path, name: str) -> list[Path]:
    """Write `<name>.png` (300 dpi) and `<name>.pdf`, each whole or not at all.

    The same figure gives the same bytes.

    Returns:
        Their paths.
    """
    png, pdf = out_dir / f"{name}.png", out_dir / f"{name}.pdf"
    with style.context(dict(STYLE)):
        with atomic(png) as handle:
            figure.savefig(handle, format="png", dpi=300)
        with atomic(pdf) as handle:
            figure.savefig(handle, format="pdf", metadata={"CreationDate": None})
    return [png, pdf]
