"""Readings: named sets of answers to the paper's open points.

docs/protocol.md lists the points; its "How a reading is chosen" says how `fitted` came
about.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from advens.attacks.threat import Attack, GradientSource, LabelMode
from advens.strauss2017 import constants
from advens.strauss2017.columns import LABEL_ALTERNATIVES, TABLES, Choice, Column
from advens.strauss2017.settings import Settings, paper_attacks

# The kinds of attack whose labels are open points: docs/protocol.md, point 11.
LABELS: Final = ("fgsm_grad1", "bim_grad1", "fgsm_grad2", "bim_grad2")

# Labels by the names in `LABELS`; see `Threat`.
ColumnLabels: TypeAlias = Mapping[str, LabelMode]

_GRADIENTS: Final[Mapping[GradientSource | None, str]] = {
    "member": "grad1",
    "mean_member": "grad2",
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """A set of answers to the open points of a data set.

    Attributes:
        name: its name in `READINGS`.
        settings: the attributes of `Settings` that it changes.
        box: see `Attack`.
        labels: the labels of FGSM and BIM through Grad. 1 and Grad. 2 in the paper's
            columns.
    """

    name: str
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    box: bool = False
    labels: ColumnLabels = dataclasses.field(
        default_factory=lambda: dict.fromkeys(LABELS, "true")
    )

    def training(self, dataset: str, **changes: object) -> Settings:
        """Return how members are trained, with changes; see `Settings.for_dataset`."""
        return Settings.for_dataset(dataset, **{**self.settings, **changes})

    def attacks(self, dataset: str, **changes: Any) -> list[Attack]:
        """Return FGSM and BIM, with changes; see `paper_attacks`."""
        return paper_attacks(dataset, **{"box": self.box, **changes})


# What Tables 1 and 3 say word for word: ReLU'd logits under a softmax.
PRINTED: Final = Reading("printed")

# By name and data set.
READINGS: Final[Mapping[str, Mapping[str, Reading]]] = {
    "printed": dict.fromkeys(constants.EPOCHS, PRINTED),
}
DEFAULT: Final = "printed"


def columns_read(
    table: str, labels: ColumnLabels, choice: Choice = "all"
) -> tuple[Column, ...]:
    """Return the columns of a table with the labels of a reading.

    A column of other labels that would show what the paper's own column shows is left
    out.

    Args:
        table: `"table2"` or `"table4"`.
        labels: those of the paper's columns and of their exact gradients.
        choice: which columns, all or those that are made by default.
    """
    read = [_labelled(column, labels) for column in TABLES[table]]
    by_name = {column.name: column for column in read}
    return tuple(
        column
        for column in read
        if (choice == "all" or column.by_default)
        and (
            column.alternative not in LABEL_ALTERNATIVES
            or column.labels != by_name[str(column.alternative_to)].labels_under("BIM")
        )
    )


def _labelled(column: Column, labels: ColumnLabels) -> Column:
    gradient = _GRADIENTS.get(column.gradient)
    if gradient is None or column.alternative in LABEL_ALTERNATIVES:
        return column
    fgsm, bim = labels[f"fgsm_{gradient}"], labels[f"bim_{gradient}"]
    if column.attack == "BIM" or fgsm == bim:
        return dataclasses.replace(column, labels=bim)
    if column.attack == "FGSM":
        return dataclasses.replace(column, labels=fgsm)
    return dataclasses.replace(column, labels=fgsm, bim_labels=bim)
