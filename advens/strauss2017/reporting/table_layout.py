"""What stands where in Tables 2 and 4, and which numbers are marked."""

from typing import Final

import pandas as pd

from advens.strauss2017 import columns

# What follows a number of Table 4.
BEST_ALONE: Final = "+"
BEST_OF_ALL: Final = "*"
MARKS_MEANING: Final = (
    f"{BEST_ALONE}: the best of the methods alone; {BEST_OF_ALL}: the best of all."
)
# Words in the names of columns that readers know in another way.
_WORDS: Final = {"fgsm": "FGSM", "bim": "BIM", "grad1": "Grad. 1", "grad2": "Grad. 2"}


def is_table4(frame: pd.DataFrame) -> bool:
    """Return whether a `cell_frame` is of Table 4."""
    return columns.BY_NAME[frame["column"].iloc[0]] in columns.TABLE4


def row_names(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a `cell_frame` that name the rows of its table."""
    return ["method"] if is_table4(frame) else ["attack", "method"]


def heading(column: str) -> list[str]:
    """Return the words over a column: `["Grad. 1", "single"]` for `grad1_single`."""
    return [_WORDS.get(word, word) for word in column.split("_")]


def with_marks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a `cell_frame` with the marks of our numbers and of the paper's.

    In Table 4, `+` marks the best of the methods that stand alone (bold in the paper)
    and `*` the best of all methods, in each column; in Table 2 nothing is marked.

    Returns:
        The frame with the columns `marks` and `paper_marks`.
    """
    if not is_table4(frame):
        return frame.assign(marks="", paper_marks="")
    alone = ~frame["method"].str.contains(" + ", regex=False)
    return frame.assign(
        marks=_marks(frame, "accuracy", alone),
        paper_marks=_marks(frame, "paper", alone),
    )


def _marks(frame: pd.DataFrame, value: str, alone: "pd.Series[bool]") -> pd.Series:
    numbers = frame[value]
    marks = pd.Series("", frame.index)
    for mark, rivals in ((BEST_ALONE, alone), (BEST_OF_ALL, alone | True)):
        best = numbers.where(rivals).groupby(frame["column"]).transform("max")
        marks += (rivals & (numbers == best)).map({True: mark, False: ""})
    return marks
