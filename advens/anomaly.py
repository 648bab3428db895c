"""BIM step by step, through each gradient and with each reading of the labels.

The paper finds BIM through Grad. 2 weaker than through Grad. 1. This measures where
that is so. Step size and eps stay the paper's, where eps = num_steps * step_size: the
steps after the paper's last one run along the border of the eps-ball.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, get_args

import numpy as np
import pandas as pd
from rich.table import Table

from advens import paper, recipes, tables
from advens.attacks import Attack
from advens.evaluation import Threat
from advens.experiments import PAPER_LOSS, Run
from advens.gradients import Labels
from advens.outcomes import Outcomes
from advens.tables import Cell

MAX_NUM_STEPS: Final = 12

# As Table 2 names them.
COLUMNS: Final = (
    *("grad1_single", "grad1_ensemble", "grad2_ensemble"),
    "ensemble_gradient",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """Who is right after some steps of BIM.

    Attributes:
        column: one of `COLUMNS`: which gradient is followed, and who is judged.
        labels: see `gradients.Gradient`.
        attack: BIM's settings.
        cell: the answers, under a name that tells it from all others: the attack is
            `BIM <num_steps>`, the column `<column>_<labels>`, with `_box` behind in the
            box.
    """

    column: str
    labels: Labels
    attack: Attack
    cell: Cell


def measure(
    run: Run,
    row: str,
    *,
    max_num_steps: int = MAX_NUM_STEPS,
    num_grad1: int | None = None,
) -> list[Point]:
    """Train the ensemble of a row and attack it by BIM, through each gradient.

    Args:
        run: its settings.
        row: of an ensemble, see `recipes.parts`.
        max_num_steps: the walk is judged after each of so many steps, no fewer than
            BIM has in `run.attacks`.
        num_grad1: Grad. 1 is that of the first so many members in turn, averaged; None
            for all.

    Returns:
        A point for each column, labels, box and number of steps.
    """
    (bim,) = (attack for attack in run.attacks if attack.name == "BIM")
    num_grad1 = run.num_members if num_grad1 is None else num_grad1
    _check(run, row, bim, max_num_steps, num_grad1)
    members = run.members(row)
    run.train(row, members)
    points = []
    for box in (False, True):
        walk = [
            dataclasses.replace(bim, name=f"BIM {n}", num_steps=n, box=box)
            for n in range(1, max_num_steps + 1)
        ]
        threats = {
            labels: [
                *(Threat("member", i, labels, PAPER_LOSS) for i in range(num_grad1)),
                Threat("mean_member", labels=labels, loss=PAPER_LOSS),
                Threat("ensemble", labels=labels, loss=PAPER_LOSS),
            ]
            for labels in get_args(Labels)
        }
        flat = [threat for some in threats.values() for threat in some]
        found = dict(
            zip(flat, run.outcomes(row, members, flat, attacks=walk), strict=True)
        )
        for labels, some in threats.items():
            for attack in walk:
                *grad1, grad2, ensemble = (found[t][attack.name] for t in some)
                answers = {
                    "grad1_single": _stacked(grad1, lambda i, o: o.members[i]),
                    "grad1_ensemble": _stacked(grad1),
                    "grad2_ensemble": _stacked([grad2]),
                    "ensemble_gradient": _stacked([ensemble]),
                }
                for column, (correct, zero) in answers.items():
                    name = f"{column}_{labels}{'_box' if box else ''}"
                    cell = Cell(run.dataset.name, attack.name, row, name, correct, zero)
                    points.append(Point(column, labels, attack, cell))
    return points


def _check(run: Run, row: str, bim: Attack, max_num_steps: int, num_grad1: int) -> None:
    recipes.parts(row)
    if not recipes.is_ensemble(row):
        raise ValueError(
            f"`row` must be of an ensemble, as 'rand_ini'. Received: row={row!r}"
        )
    if max_num_steps < bim.num_steps:
        raise ValueError(
            f"`max_num_steps` must be >= BIM's num_steps, {bim.num_steps}. "
            f"Received: max_num_steps={max_num_steps}"
        )
    if not 1 <= num_grad1 <= run.num_members:
        raise ValueError(
            f"`num_grad1` must be from 1 to {run.num_members}. "
            f"Received: num_grad1={num_grad1}"
        )


def _stacked(
    outcomes: Sequence[Outcomes],
    right: Callable[[int, Outcomes], np.ndarray] = lambda _, o: o.ensemble,
) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.stack([right(i, o) for i, o in enumerate(outcomes)]),
        np.stack([o.zero_gradient for o in outcomes]),
    )


def tidy(points: Sequence[Point]) -> pd.DataFrame:
    """Return a row a point: its attack, and what `tables.tidy` says of its answers."""
    frame = tables.tidy([point.cell for point in points])
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
    answers = frame.drop(columns=["attack", "column", "paper", "difference"])
    names = ["dataset", "method"]
    return pd.concat([answers[names], settings, answers.drop(columns=names)], axis=1)


def render(points: Sequence[Point], *, num_steps: int, title: str) -> Table:
    """Return the accuracies after so many steps, for the terminal.

    The last row holds the paper's values, if it has any.
    """
    table = Table(title=title)
    for name in ("labels", "box", *COLUMNS):
        table.add_column(name.replace("_", " "))
    rows: dict[tuple[str, bool], dict[str, str]] = {}
    for point in points:
        if point.attack.num_steps == num_steps:
            row = rows.setdefault((point.labels, point.attack.box), {})
            row[point.column] = f"{point.cell.accuracy:.4f}"
    order = get_args(Labels)
    for labels, box in sorted(rows, key=lambda key: (order.index(key[0]), key[1])):
        shown = rows[labels, box]
        table.add_row(labels, "yes" if box else "no", *(shown[c] for c in COLUMNS))
    cell = points[0].cell
    if values := paper.TABLE2.get(cell.dataset, {}).get(("BIM", cell.row)):
        theirs = dict(zip(paper.TABLE2_COLUMNS, values, strict=True))
        shown = {c: f"{theirs[c]:.4f}" for c in COLUMNS if c in theirs}
        table.add_section()
        table.add_row("paper", "", *(shown.get(c, "") for c in COLUMNS))
    return table
