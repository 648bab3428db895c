"""Tables 2 and 4, end to end: from a run to the cells of a table."""

from collections.abc import Mapping, Sequence

import numpy as np

from advens.arrays import Answers
from advens.attacks.threat import Threat
from advens.checks import check_count
from advens.evaluation.outcomes import Outcomes, count_lost_classes
from advens.strauss2017 import columns, rows
from advens.strauss2017.cells import Cell
from advens.strauss2017.columns import Column
from advens.strauss2017.run import Run
from advens.strauss2017.settings import NUM_SINGLES
from advens.training.recipe import Member

# By threat, the outcomes by the attack's name: what `Run.attack` returns.
ByThreat = Mapping[Threat | None, Mapping[str, Outcomes]]


def table2(run: Run, methods: Sequence[str]) -> list[Cell]:
    """Train the ensembles of Table 2, attack them and return the table's cells.

    Args:
        run: its settings.
        methods: the rows, see `rows.TABLE2_ROWS`.
    """
    table = run.columns_of("table2")
    groups = {row: [run.members(row)] for row in methods}
    outcomes = _outcomes_by_row(run, groups, table)
    return [
        _cell(run, row, column, attack.name, outcomes[row])
        for attack in run.attacks
        for row in methods
        for column in table
    ]


def table4(
    run: Run, methods: Sequence[str], *, num_singles: int = NUM_SINGLES
) -> list[Cell]:
    """Train the rows of Table 4, attack them and return the table's cells.

    Args:
        run: its settings.
        methods: the rows: parts joined by `+`, see `rows.parts`. A row without an
            ensemble method stands for single networks.
        num_singles: how many single networks stand behind such a row; each is attacked
            through its own gradient.
    """
    check_count("num_singles", num_singles)
    table = run.columns_of("table4")
    groups = {
        row: [run.members(row)]
        if rows.is_ensemble(row)
        else [[member] for member in run.members(row, num_singles)]
        for row in methods
    }
    outcomes = _outcomes_by_row(run, groups, table)
    return [
        _cell(run, row, column, column.attack or "none", outcomes[row])
        for row in methods
        for column in table
    ]


def _outcomes_by_row(
    run: Run, groups: Mapping[str, Sequence[list[Member]]], table: Sequence[Column]
) -> dict[str, list[ByThreat]]:
    """Train and attack row by row, the cheapest first, while there is time."""
    outcomes = {}
    for row in sorted(groups, key=rows.cost):
        run.check_time(row)
        outcomes[row] = _train_and_attack(run, row, groups[row], table)
        run.export()
    return outcomes


def _train_and_attack(
    run: Run, row: str, groups: Sequence[list[Member]], table: Sequence[Column]
) -> list[ByThreat]:
    """Return the outcomes of each group of members in a row of the table."""
    threats = columns.threats(table, run.attacks, len(groups[0]))
    # Members are not needed where all outcomes are there.
    needed = [group for group in groups if not run.has_outcomes(group, threats)]
    run.train(row, [member for group in needed for member in group])
    run.count_restarts(row, [member for group in groups for member in group])
    outcomes: list[ByThreat] = []
    run.lost_classes[row] = []
    for group in groups:
        by_threat = run.attack(row, group, threats)
        outcomes.append(by_threat)
        clean = by_threat[None]["none"]
        run.lost_classes[row] += count_lost_classes(clean.members, run.dataset.y_test)
    return outcomes


def _cell(
    run: Run, row: str, column: Column, attack: str, outcomes: Sequence[ByThreat]
) -> Cell:
    """Return the cell of a column, over all groups of members of a row."""
    parts = [
        answers(column, attack, by_threat, num_grad1=run.num_members)
        for by_threat in outcomes
    ]
    return Cell(
        run.dataset.name,
        attack,
        row,
        column.name,
        np.concatenate([correct for correct, _ in parts]),
        np.concatenate([zero for _, zero in parts]) if column.gradient else None,
    )


def answers(
    column: Column, attack: str, by_threat: ByThreat, *, num_grad1: int
) -> tuple[Answers, Answers]:
    """Return the answers that a column judges.

    Args:
        column: the column.
        attack: name of the attack; ignored for a column without a gradient.
        by_threat: the outcomes of an ensemble.
        num_grad1: number of members whose gradient is Grad. 1, in turn.

    Returns:
        Which answers to the `n` images are right, and where the gradient was exactly
        zero, both `(k, n)`, for `k` members or attacks.
    """
    outcomes = [
        (threat, by_threat[threat][attack if threat else "none"])
        for threat in column.threats(attack, num_grad1)
    ]
    zero_gradient = np.stack([outcome.zero_gradient for _, outcome in outcomes])
    if column.judged == "members":
        return np.concatenate([o.members for _, o in outcomes]), zero_gradient
    if column.judged == "own_member":
        own = [o.members[t.index] for t, o in outcomes if t and t.index is not None]
        return np.stack(own), zero_gradient
    return np.stack([outcome.ensemble for _, outcome in outcomes]), zero_gradient
