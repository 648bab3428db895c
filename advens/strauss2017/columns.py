"""The columns of Tables 2 and 4: the one place that says what a column is.

Everything about a column derives from its entry here: what is attacked and judged for
it, the CSV files, the comparison with the paper, the claims, the figures, the pages and
the anomaly.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from advens.attacks.threat import (
    Attack,
    GradientLoss,
    GradientSource,
    LabelMode,
    Threat,
)
from advens.strauss2017 import constants

Alternative = Literal["repredicted_labels", "true_labels", "exact_gradients"]
Choice = Literal["default", "all"]

# The loss of the paper's columns: docs/protocol.md, point 12.
PAPER_LOSS: Final = "logits"

# Other ways to read the paper's columns: for each, the attacks under which its columns
# can take the place of the paper's.
ALTERNATIVES: Final[Mapping[Alternative, tuple[str, ...]]] = {
    "repredicted_labels": ("BIM",),
    "true_labels": ("BIM",),
    "exact_gradients": ("FGSM", "BIM"),
}
LABEL_ALTERNATIVES: Final = ("repredicted_labels", "true_labels")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name in files.
        meaning: what it shows, in words.
        judged: whose answers count: `"members"`, each of them; `"own_member"`, the
            member whose gradient is followed; `"ensemble"`.
        gradient: the gradient that is followed, see `Threat`; None for no attack.
        labels: see `Threat`.
        bim_labels: the labels under BIM, where they are others.
        loss: see `Threat`.
        attack: `"none"`, `"FGSM"` or `"BIM"`; None where the table's rows have attacks.
        place: its position in the paper's table, from 0; None if the paper lacks it.
        alternative: in which other way it reads the paper's column `alternative_to`,
            if it does.
        alternative_to: name of the paper's column that it reads in another way.
        legend: its name in figures, if it is drawn.
        by_default: whether it is made unless all columns are asked for.
    """

    name: str
    meaning: str
    judged: Literal["members", "own_member", "ensemble"] = "ensemble"
    gradient: GradientSource | None = None
    labels: LabelMode = "true"
    bim_labels: LabelMode | None = None
    loss: GradientLoss = PAPER_LOSS
    attack: str | None = None
    place: int | None = None
    alternative: Alternative | None = None
    alternative_to: str | None = None
    legend: str | None = None
    by_default: bool = True

    def labels_under(self, attack: str) -> LabelMode:
        """Return the labels in the loss that an attack follows."""
        return self.bim_labels if self.bim_labels and attack != "FGSM" else self.labels

    def threats(self, attack: str, num_members: int) -> list[Threat | None]:
        """Return the gradients that an attack follows for it, in turn.

        Without attack this is `[None]`.
        """
        if self.gradient is None:
            return [None]
        indices: Sequence[int | None] = [None]
        if self.gradient == "member":
            indices = range(num_members)
        labels = self.labels_under(attack)
        return [Threat(self.gradient, i, labels, self.loss) for i in indices]


TABLE2: Final = (
    Column(
        "no_attack_single",
        "no attack, mean of the members",
        judged="members",
        place=0,
        legend="No Attack Single",
    ),
    Column(
        "no_attack_ensemble",
        "no attack, ensemble",
        place=1,
        legend="No Attack Ensemble",
    ),
    Column(
        "grad1_single",
        "each member under its own gradient, mean",
        judged="own_member",
        gradient="member",
        place=2,
        legend="Grad. 1 Single",
    ),
    Column(
        "grad1_ensemble",
        "ensemble under one member's gradient, mean over the members",
        gradient="member",
        place=3,
        legend="Grad. 1 Ensemble",
    ),
    Column(
        "grad2_ensemble",
        "ensemble under the mean of the members' gradients",
        gradient="mean_member",
        place=4,
        legend="Grad. 2 Ensemble",
    ),
    Column(
        "grad2_ensemble_repredicted",
        "ensemble under Grad. 2, each member's label predicted again at every step",
        gradient="mean_member",
        labels="repredicted",
        alternative="repredicted_labels",
        alternative_to="grad2_ensemble",
        legend="Grad. 2 Ensemble, labels re-predicted",
    ),
    Column(
        "grad2_ensemble_true",
        "ensemble under Grad. 2, with true labels",
        gradient="mean_member",
        alternative="true_labels",
        alternative_to="grad2_ensemble",
        legend="Grad. 2 Ensemble, true labels",
    ),
    Column(
        "ensemble_gradient",
        "ensemble under the gradient of its own loss",
        gradient="ensemble",
        legend="Ensemble Gradient",
    ),
    Column(
        "grad1_single_exact",
        "grad1_single by exact gradients, which do not round away",
        judged="own_member",
        gradient="member",
        loss="exact",
        alternative="exact_gradients",
        alternative_to="grad1_single",
        by_default=False,
    ),
    Column(
        "grad1_ensemble_exact",
        "grad1_ensemble by exact gradients",
        gradient="member",
        loss="exact",
        alternative="exact_gradients",
        alternative_to="grad1_ensemble",
        by_default=False,
    ),
    Column(
        "grad2_ensemble_exact",
        "grad2_ensemble by exact gradients",
        gradient="mean_member",
        loss="exact",
        alternative="exact_gradients",
        alternative_to="grad2_ensemble",
        by_default=False,
    ),
)

# A row of single networks stands for ensembles of one, where all gradients coincide.
TABLE4: Final = (
    Column("no_attack", "no attack", attack="none", place=0),
    Column(
        "fgsm",
        "FGSM through Grad. 2; a single network through its own gradient",
        gradient="mean_member",
        attack="FGSM",
        place=1,
    ),
    Column(
        "bim",
        "BIM through Grad. 2; a single network through its own gradient",
        gradient="mean_member",
        attack="BIM",
        place=2,
    ),
    Column(
        "bim_repredicted",
        "BIM, each member's label predicted again at every step",
        gradient="mean_member",
        labels="repredicted",
        attack="BIM",
        alternative="repredicted_labels",
        alternative_to="bim",
    ),
    Column(
        "bim_true",
        "BIM, with true labels",
        gradient="mean_member",
        attack="BIM",
        alternative="true_labels",
        alternative_to="bim",
    ),
    Column(
        "fgsm_ensemble_gradient",
        "FGSM through the gradient of the ensemble's own loss",
        gradient="ensemble",
        attack="FGSM",
    ),
    Column(
        "bim_ensemble_gradient",
        "BIM through the gradient of the ensemble's own loss",
        gradient="ensemble",
        attack="BIM",
    ),
)

TABLES: Final[Mapping[str, tuple[Column, ...]]] = {"table2": TABLE2, "table4": TABLE4}
BY_NAME: Final = {column.name: column for table in TABLES.values() for column in table}

# BIM is followed step by step through each gradient of Table 2, with all labels.
ANOMALY: Final = tuple(
    column for column in TABLE2 if column.gradient and not column.alternative
)


def threats(
    columns: Iterable[Column], attacks: Sequence[Attack], num_members: int
) -> dict[Threat | None, list[Attack]]:
    """Return the gradients that are followed for some columns, each once.

    Returns:
        For each the attacks that follow it; without attack, under None, none.
    """
    followed: dict[Threat | None, list[Attack]] = {}
    for column in columns:
        for attack in attacks:
            for threat in column.threats(attack.name, num_members):
                by = followed.setdefault(threat, [])
                if threat and attack not in by:
                    by.append(attack)
    return followed


def stand_ins_of(alternative: Alternative) -> dict[tuple[str, str], str]:
    """Return which column can take the place of which `(attack, column)`."""
    return {
        (attack, column.alternative_to): column.name
        for column in BY_NAME.values()
        if column.alternative == alternative and column.alternative_to
        for attack in ALTERNATIVES[alternative]
    }


def paper_value(dataset: str, attack: str, row: str, column: str) -> float | None:
    """Return what the paper's Table 2 or 4 has in a cell; None if it has nothing."""
    place = BY_NAME[column].place if column in BY_NAME else None
    if place is None:
        return None
    values: tuple[float, ...] | None
    if BY_NAME[column] in TABLE2:
        values = constants.TABLE2.get(dataset, {}).get((attack, row))
    else:
        values = constants.TABLE4.get(dataset, {}).get(row)
    return values[place] if values else None


def paper_cells(table: str) -> set[tuple[str, str]]:
    """Return each `(attack, column)` of the paper's numbers, once.

    In Table 2 the columns without attack stand beside both attacks, and count once.
    """
    cells = set()
    for column in TABLES[table]:
        if column.place is None:
            continue
        if column.attack:
            cells.add((column.attack, column.name))
        else:
            attacks = ("FGSM", "BIM") if column.gradient else ("FGSM",)
            cells |= {(attack, column.name) for attack in attacks}
    return cells
