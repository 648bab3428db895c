"""BIM step by step, through each gradient and with each reading of the labels.

The paper finds BIM through Grad. 2 weaker than through Grad. 1. This measures where
that is so. Step size and eps stay the paper's, where eps = num_steps * step_size: the
steps after the paper's last one run along the border of the eps-ball.
"""

import dataclasses
from typing import get_args

from advens.attacks.threat import Attack, LabelMode
from advens.checks import check_count
from advens.strauss2017 import columns, rows
from advens.strauss2017.cells import AnomalyPoint, Cell
from advens.strauss2017.experiments import answers
from advens.strauss2017.run import Run
from advens.strauss2017.settings import MAX_NUM_STEPS


def measure_anomaly(
    run: Run,
    row: str,
    *,
    max_num_steps: int = MAX_NUM_STEPS,
    num_grad1: int | None = None,
) -> list[AnomalyPoint]:
    """Train the ensemble of a row and attack it by BIM, through each gradient.

    Args:
        run: its settings.
        row: the row of an ensemble, see `rows.parts`.
        max_num_steps: BIM is judged after each of so many steps, no fewer than it has
            in `run.attacks`.
        num_grad1: number of members whose gradient is Grad. 1, in turn; the results
            are averaged. None for all.

    Returns:
        A point for each column of `columns.ANOMALY`, reading of the labels, box and
        number of steps.
    """
    (bim,) = (attack for attack in run.attacks if attack.name == "BIM")
    num_grad1 = run.num_members if num_grad1 is None else num_grad1
    _check(run, row, bim, max_num_steps, num_grad1)
    members = run.members(row)
    run.train(row, members)
    by_labels = {
        labels: [
            dataclasses.replace(column, labels=labels) for column in columns.ANOMALY
        ]
        for labels in get_args(LabelMode)
    }
    every = [column for read in by_labels.values() for column in read]
    points = []
    for box in (False, True):
        steps = [
            dataclasses.replace(bim, name=f"BIM {n}", num_steps=n, box=box)
            for n in range(1, max_num_steps + 1)
        ]
        threats = columns.threats(every, steps, num_grad1)
        by_threat = run.attack(row, members, threats)
        suffix = "_box" if box else ""
        for labels, read in by_labels.items():
            for attack in steps:
                for column in read:
                    cell = Cell(
                        run.dataset.name,
                        attack.name,
                        row,
                        f"{column.name}_{labels}{suffix}",
                        *answers(column, attack.name, by_threat, num_grad1=num_grad1),
                    )
                    points.append(AnomalyPoint(column.name, labels, attack, cell))
    return points


def _check(run: Run, row: str, bim: Attack, max_num_steps: int, num_grad1: int) -> None:
    if not rows.is_ensemble(row):
        raise ValueError(
            "`row` must be the row of an ensemble, such as 'rand_ini'. "
            f"Received: row={row!r}"
        )
    check_count("max_num_steps", max_num_steps)
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
