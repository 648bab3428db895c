"""Plain text as LaTeX."""

from collections.abc import Mapping
from typing import Final

# What LaTeX reads as something else, and the Greek letters of budgets.
_ESCAPED: Final[Mapping[int, str]] = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "ε": r"$\varepsilon$",
        "α": r"$\alpha$",
        **{character: f"\\{character}" for character in "{}$&#_%"},
    }
)


def escaped(text: str) -> str:
    """Return a text as LaTeX that is typeset as the text."""
    return text.translate(_ESCAPED)
