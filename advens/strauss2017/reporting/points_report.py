"""Table 4's open points as a frame and on the terminal."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.table import Table

from advens.strauss2017.cells import DefensePoint
from advens.strauss2017.reporting.tables import cell_frame


def points_frame(points: Sequence[DefensePoint]) -> pd.DataFrame:
    """Return one row per cell and combination of answers: the answers, then the cell.

    See `tables.cell_frame`.
    """
    answers = pd.DataFrame([dict(point.answers) for point in points])
    return answers.join(cell_frame([point.cell for point in points]))


def answer_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of each cell under each answer, averaged over all others.

    Args:
        frame: as of `points_frame`.

    Returns:
        One row per cell, with the paper's number (NaN if it has none), and one column
        per answer, called `<point>=<answer>`; NaN where a point does not matter.
    """
    names = list(frame.columns[: frame.columns.get_loc("dataset")])
    cells = ["method", "attack", "column"]
    means = frame.groupby(cells, sort=False)["paper"].first().to_frame()
    for name in names:
        part = frame.dropna(subset=name)
        by_answer = part.pivot_table("accuracy", cells, name, sort=False)
        by_answer.columns = [f"{name}={answer}" for answer in by_answer.columns]
        means = means.join(by_answer)
    return means.reset_index()


def terminal_points(frame: pd.DataFrame, *, title: str) -> Table:
    """Return the means of `answer_means` for the terminal, cell by cell."""
    means = answer_means(frame)
    table = Table(title=title)
    for name in means.columns:
        table.add_column(str(name).replace("_", " ").replace("=", "\n"))
    for row in means.itertuples(index=False):
        table.add_row(*(_shown(value) for value in row))
    return table


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)
