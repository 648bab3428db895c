"""Figures as files."""

import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import style as matplotlib_style
from matplotlib.backends.backend_pgf import LatexError
from matplotlib.figure import Figure
from matplotlib.text import Text

from advens.storage.files import write_all
from advens.strauss2017.reporting.figure_style import SCREEN, Style

FORMATS: Final = ("png", "pdf")

# What else matplotlib is told. Without dates the same figure gives the same bytes.
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "png": {"dpi": 300},
    "pdf": {"metadata": {"CreationDate": None}},
    "svg": {"metadata": {"Date": None}},
}


def save_figure(
    figure: Figure,
    caption: str,
    *,
    out_dir: Path,
    name: str,
    formats: Sequence[str] = FORMATS,
    style: Style = SCREEN,
) -> list[Path]:
    """Write a figure in some formats and its caption, all of them whole or none.

    The same figure gives the same bytes. A .png has 300 dpi. Images in a .pgf are
    files of their own, `<name>-img<number>.png`.

    Args:
        figure: the figure.
        caption: for `<name>_caption.tex`.
        out_dir: the directory of the files.
        name: how their names begin.
        formats: some of `"png"`, `"pdf"`, `"svg"` and `"pgf"`.
        style: the style that it was drawn in.

    Returns:
        The paths of the files.
    """
    contents: dict[str, bytes] = {}
    with matplotlib_style.context(style.settings):
        for suffix in formats:
            if suffix == "pgf":
                contents |= _pgf_files(figure, name)
                continue
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, **_OPTIONS[suffix])
            contents[f"{name}.{suffix}"] = buffer.getvalue()
    contents[f"{name}_caption.tex"] = caption.encode()
    return write_all(out_dir, contents)


def check_latex() -> None:
    """Raise a `RuntimeError` if matplotlib cannot write a .pgf on this machine.

    It asks LaTeX how large each text will be.
    """
    figure = Figure()
    figure.text(0, 0, "text")
    try:
        with matplotlib_style.context(SCREEN.settings):
            figure.savefig(io.BytesIO(), format="pgf")
    except (LatexError, RuntimeError, ValueError) as error:
        # The line of LaTeX's own that says what is wrong begins with "! ".
        complaint = re.search(r"^! .*", str(error), re.MULTILINE)
        cause = complaint[0] if complaint else error.__cause__ or error
        raise RuntimeError(
            "A .pgf needs pdflatex on this machine, with its packages pgf and "
            "underscore: matplotlib asks it how large each text will be. Install "
            f"LaTeX, or leave pgf out of `format`. Received from it: {cause}"
        ) from error


def _pgf_files(figure: Figure, name: str) -> dict[str, bytes]:
    """Return the files of a .pgf: itself, and the images that it includes."""
    # Otherwise its document would need the package underscore. Nothing else that
    # LaTeX reads in its own way is in a figure of a paper, but for the per cent sign,
    # which matplotlib escapes.
    texts = {text: text.get_text() for text in figure.findobj(Text)}
    for text, shown in texts.items():
        text.set_text(shown.replace("_", r"\_"))
    with tempfile.TemporaryDirectory() as directory:
        # It names its images after itself, so the name must be the final one.
        path = Path(directory) / f"{name}.pgf"
        figure.savefig(path, format="pgf")
        images = sorted(set(Path(directory).iterdir()) - {path})
        files = {file.name: file.read_bytes() for file in (path, *images)}
    for text, shown in texts.items():
        text.set_text(shown)
    return files
