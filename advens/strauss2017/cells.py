"""A cell of a table: the answers behind one number, image by image."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from advens.arrays import Answers, Labels
from advens.attacks.threat import Attack, GradientLoss, LabelMode
from advens.strauss2017 import columns


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One number of a table, image by image.

    Attributes:
        dataset: name of the data set.
        attack: `"FGSM"`, `"BIM"` or `"none"`; in Table 2 the row's, also where the
            column has no attack.
        row: the row's name, see `rows.label`.
        column: the column's name.
        correct: `(k, n)` bool: the right answers of the `k` members, or of the ensemble
            under `k` attacks, to `n` images. The cell shows their mean.
        zero_gradient: `(k, n)` bool, see `attacks.fgsm_bim.AdversarialExamples`; None
            without attack.
    """

    dataset: str
    attack: str
    row: str
    column: str
    correct: Answers
    zero_gradient: Answers | None = None

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float(self.correct.mean())

    @property
    def paper(self) -> float | None:
        """The number of the paper's Table 2 or 4; None if it has none here."""
        return columns.paper_value(self.dataset, self.attack, self.row, self.column)


@dataclasses.dataclass(frozen=True, eq=False)
class AnomalyPoint:
    """The answers after some steps of BIM.

    Attributes:
        column: one of `columns.ANOMALY`: which gradient is followed, who is judged.
        labels: see `Threat`.
        attack: BIM's settings.
        cell: the answers, under a name that tells it from all others: the attack is
            `BIM <num_steps>`, the column `<column>_<labels>`, followed by `_box` if
            images are clipped to [0, 1].
    """

    column: str
    labels: LabelMode
    attack: Attack
    cell: Cell


@dataclasses.dataclass(frozen=True, eq=False)
class AtlasPoint:
    """The answers behind one number of the atlas.

    Attributes:
        reading: what identifies the reading and the draw of members, by the names of
            the atlas's columns.
        loss: see `Threat`.
        attack: name of the attack.
        column: name of the column of Table 2.
        labels: see `Threat`; empty for a column without attack.
        cell: the answers, under names that tell them from all others.
    """

    reading: Mapping[str, object]
    loss: GradientLoss
    attack: str
    column: str
    labels: LabelMode | Literal[""]
    cell: Cell


@dataclasses.dataclass(frozen=True, eq=False)
class DefensePoint:
    """A cell of Table 4 under some answers to its open points.

    Attributes:
        answers: the attributes of `Settings` that were tried, by name.
        cell: the cell.
    """

    answers: Mapping[str, object]
    cell: Cell

    @property
    def to_pack(self) -> Cell:
        """The cell under a name that tells it from all others."""
        values = "-".join(map(str, self.answers.values()))
        return dataclasses.replace(self.cell, column=f"{self.cell.column}-{values}")


def pack_cells(cells: Sequence[Cell], y_test: Labels) -> dict[str, np.ndarray]:
    """Turn cells into arrays of one bit per answer; `unpack_cells` is the way back.

    `<attack>/<row>/<column>/correct` and `.../zero_gradient` are `(k, ceil(n / 8))`
    uint8 as of `np.packbits`; `y_test` holds the labels of the `n` images.
    """
    arrays = {
        "dataset": np.array(cells[0].dataset),
        "num_images": np.array(cells[0].correct.shape[1]),
        "y_test": np.asarray(y_test, np.uint8),
    }
    for cell in cells:
        key = f"{cell.attack}/{cell.row}/{cell.column}"
        arrays[f"{key}/correct"] = np.packbits(cell.correct, axis=1)
        if cell.zero_gradient is not None:
            arrays[f"{key}/zero_gradient"] = np.packbits(cell.zero_gradient, axis=1)
    return arrays


def unpack_cells(arrays: Mapping[str, np.ndarray]) -> list[Cell]:
    """Return the cells that `pack_cells` packed."""
    count = int(arrays["num_images"])

    def bits(packed: np.ndarray) -> Answers:
        return np.unpackbits(packed, axis=1, count=count).astype(bool)

    cells = []
    for name in arrays:
        if not name.endswith("/correct"):
            continue
        key = name.removesuffix("/correct")
        attack, row, column = key.split("/")
        zero = arrays.get(f"{key}/zero_gradient")
        cells.append(
            Cell(
                dataset=str(arrays["dataset"]),
                attack=attack,
                row=row,
                column=column,
                correct=bits(arrays[name]),
                zero_gradient=None if zero is None else bits(zero),
            )
        )
    return cells
