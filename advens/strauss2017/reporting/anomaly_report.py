"""The anomaly of BIM as a frame and on the terminal."""

from collections.abc import Sequence
from typing import get_args

import pandas as pd
from rich.table import Table

from advens.attacks.threat import LabelMode
from advens.strauss2017 import columns
from advens.strauss2017.cells import AnomalyPoint
from advens.strauss2017.reporting.tables import cell_frame


def anomaly_frame(points: Sequence[AnomalyPoint]) -> pd.DataFrame:
    """Return one row per point: BIM's settings, and what `cell_frame` has of a cell."""
    answers = cell_frame([point.cell for point in points])
    settings = pd.DataFrame(
        [
            {
                "column": point.column,
                "labels": point.labels,
                "box": point.attack.box,
                "eps": point.attack.eps,
                "step_size": point.attack.step_size,
                "num_steps": point.attack.num_steps,
            }
            for point in points
        ]
    )
    # A point's cell has names of its own, to which the paper has no numbers.
    answers = answers.drop(columns=["attack", "column", "paper", "difference"])
    names = ["dataset", "method"]
    return pd.concat([answers[names], settings, answers.drop(columns=names)], axis=1)


def terminal_anomaly(
    points: Sequence[AnomalyPoint], *, num_steps: int, title: str
) -> Table:
    """Return the accuracies after so many steps of BIM, for the terminal.

    The last row has the paper's numbers, if there are any.
    """
    names = [column.name for column in columns.ANOMALY]
    table = Table(title=title)
    for name in ("labels", "box", *names):
        table.add_column(name.replace("_", " "))
    shown = {
        (point.labels, point.attack.box, point.column): f"{point.cell.accuracy:.4f}"
        for point in points
        if point.attack.num_steps == num_steps
    }
    for labels in get_args(LabelMode):
        for box in (False, True):
            accuracies = [shown[labels, box, name] for name in names]
            table.add_row(labels, "yes" if box else "no", *accuracies)
    cell = points[0].cell
    paper = [columns.paper_value(cell.dataset, "BIM", cell.row, name) for name in names]
    if any(paper):
        table.add_section()
        table.add_row(
            "paper", "", *(f"{value:.4f}" if value else "" for value in paper)
        )
    return table
