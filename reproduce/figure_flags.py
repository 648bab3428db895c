"""The flags of the scripts that draw: in which files, and for which page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from absl import flags

from advens import program
from advens.strauss2017.reporting.figure_style import STYLES, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS: Final = ("pdf", "png", "pgf", "svg")

FORMAT: Final = flags.DEFINE_list(
    "format",
    "png,pdf",
    f"Formats of a figure: some of {', '.join(_FORMATS)}. pgf is drawn by LaTeX, in "
    "the fonts of the document that inputs it, and needs a style of a paper; "
    "matplotlib needs LaTeX to write it, too.",
)
STYLE: Final = flags.DEFINE_enum(
    "style",
    "screen",
    list(STYLES),
    "The page of a figure: a screen, or a paper with "
    f"{STYLES['one_column'].width} inches for one column and "
    f"{STYLES['two_columns'].width} for two, as in ICML's style. In a paper, what "
    "differs from the original is in the caption, and all is told apart in grey.",
)
flags.register_validator(
    "format",
    lambda formats: formats and set(formats) <= set(_FORMATS),
    f"must be some of {', '.join(_FORMATS)}",
)
flags.register_multi_flags_validator(
    ["format", "style"],
    lambda values: "pgf" not in values["format"] or STYLES[values["style"]].in_print,
    "pgf must be with --style=one_column or --style=two_columns",
)


def style() -> Style:
    """Return the style that was chosen."""
    return STYLES[STYLE.value]


def check(out_dir: Path) -> None:
    """Raise an error if figures cannot be written to `out_dir`, the `figures_dir`."""
    program.check_writable("figures_dir", out_dir)
    if "pgf" in FORMAT.value:
        from advens.strauss2017.reporting import figure_files

        figure_files.check_latex()


def save(figure: "Figure", caption: str, *, out_dir: Path, name: str) -> Sequence[Path]:
    """Write a figure in the formats that were chosen, and its caption."""
    from advens.strauss2017.reporting import figure_files

    return figure_files.save_figure(
        figure,
        caption,
        out_dir=out_dir,
        name=name,
        formats=list(dict.fromkeys(FORMAT.value)),
        style=style(),
    )
