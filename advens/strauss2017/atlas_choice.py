"""How a reading is chosen from the atlas: docs/protocol.md, "How a reading is chosen".

Nothing here needs Keras.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from advens.evaluation.statistics import wilson_interval
from advens.strauss2017 import columns
from advens.strauss2017.cells import AtlasPoint
from advens.strauss2017.readings import LABELS

# What identifies a reading but for its labels, and a draw of members.
READING: Final = (
    *("logits", "batch_size", "optimizer", "learning_rate", "momentum", "decay", "box"),
)
DRAW: Final = (*READING, "num_members", "seed")

# A reading and a draw by the names in `DRAW`, the chosen labels by those in `LABELS`,
# `"distance"`, `"restarts"` and `"lost_classes"`.
Judged: TypeAlias = Mapping[str, Any]

# So many readings are trained again, with new members.
NUM_REPEATED: Final = 3

# Labels whose cells differ by less count as equal; then these are taken.
_EQUAL_LABELS: Final = 0.01
_PREFERRED_LABELS: Final = "predicted"

# Keras's usage of 2017, from which departures are counted: an optimizer at its defaults
# is one more point.
_USAGE_2017: Final = {"logits": "linear", "batch_size": 32, "box": True}


def atlas_frame(points: Sequence[AtlasPoint]) -> pd.DataFrame:
    """Return one row per number of the atlas.

    It has the reading, the draw of members, the accuracy with its Wilson 95 % interval,
    the share of zero gradients, the paper's number and the difference.
    """
    lines = []
    for point in points:
        cell = point.cell
        low, high = wilson_interval(cell.accuracy, cell.correct.shape[1])
        zero = cell.zero_gradient
        paper = columns.paper_value(
            cell.dataset, point.attack, "rand_ini", point.column
        )
        lines.append(
            {
                "dataset": cell.dataset,
                **point.reading,
                "num_images": cell.correct.shape[1],
                "loss": point.loss,
                "attack": point.attack,
                "column": point.column,
                "labels": point.labels,
                "accuracy": cell.accuracy,
                "wilson_low": low,
                "wilson_high": high,
                "zero_gradient_share": np.nan if zero is None else zero.mean(),
                "paper": np.nan if paper is None else paper,
            }
        )
    frame = pd.DataFrame(lines)
    frame["difference"] = frame["accuracy"] - frame["paper"]
    return frame


def distances(atlas: pd.DataFrame, *, loss: str = columns.PAPER_LOSS) -> list[Judged]:
    """Return the distance of each reading and draw from the paper, nearest first.

    Args:
        atlas: as of `atlas_frame`. Where the paper has no numbers there are no
            distances.
        loss: see `Threat`.
    """
    judged: list[Judged] = []
    cells = atlas[(atlas["loss"] == loss) & atlas["paper"].notna()]
    for _, group in cells.groupby(list(DRAW), sort=False, dropna=False):
        names = [*DRAW, "restarts", "lost_classes"]
        # As Python's own numbers, which the addresses of members need.
        [values] = group[names].head(1).to_dict("records")
        reading = {name: None if pd.isna(v) else v for name, v in values.items()}
        judged.append({**reading, **choose_labels(group)})
    return sorted(judged, key=lambda reading: reading["distance"])


def reading_name(reading: Judged) -> str:
    """Return a reading in a few words, such as `linear, 32, adam, box`."""
    box = "box" if reading["box"] else "no box"
    return (
        f"{reading['logits']}, {reading['batch_size']}, {reading['optimizer']}, {box}"
    )


def row_name(reading: Judged) -> str:
    """Return what names the row of a reading and draw, with its distance."""
    return (
        f"{reading_name(reading)}; {reading['num_members']} members, seed "
        f"{reading['seed']}: {reading['distance']:.3f}"
    )


def choose_labels(cells: pd.DataFrame) -> dict[str, object]:
    """Choose the labels of each attack and gradient by the distance from the paper.

    Args:
        cells: the rows of `atlas_frame` of one reading, draw and loss.

    Returns:
        The labels by the names in `LABELS`, and the `"distance"`: the mean absolute
        difference over the eight cells.
    """
    clean = cells[cells["labels"].isna() | (cells["labels"] == "")]
    differences = list(clean["difference"].abs())
    chosen: dict[str, object] = {}
    for name in LABELS:
        attack, gradient = name.split("_")
        of_kind = [c for c in cells["column"].unique() if c.startswith(gradient)]
        part = cells[
            (cells["attack"] == attack.upper()) & cells["column"].isin(of_kind)
        ]
        table = part.pivot(index="labels", columns="column", values="difference")
        labels = str(table.abs().mean(axis=1).idxmin())
        gap = np.abs(table.loc[labels] - table.loc[_PREFERRED_LABELS]).max()
        if gap < _EQUAL_LABELS:
            labels = _PREFERRED_LABELS
        chosen[name] = labels
        differences += list(table.loc[labels].abs())
    return {**chosen, "distance": float(np.mean(differences))}


def departures(reading: Judged) -> int:
    """Return in how many points a reading departs from Keras's usage of 2017."""
    count = sum(reading[name] != value for name, value in _USAGE_2017.items())
    at_defaults = reading["momentum"] is None and reading["decay"] is None
    return count + (0 if at_defaults else 1)


def winner(readings: Sequence[Judged]) -> Judged | None:
    """Return the reading that wins, by the rule, as of the second draw of members.

    Args:
        readings: as of `distances`, with both draws.

    Returns:
        The reading; None while the second draw is not complete.
    """
    first_seed = min((reading["seed"] for reading in readings), default=0)
    second_draw = [reading for reading in readings if reading["seed"] != first_seed]
    if len(second_draw) < NUM_REPEATED:
        return None
    earlier = {
        _key(reading): reading["distance"]
        for reading in readings
        if reading["seed"] == first_seed
    }
    changes = [abs(r["distance"] - earlier[_key(r)]) for r in second_draw]
    limit = min(r["distance"] for r in second_draw) + max(changes)
    equal = [reading for reading in second_draw if reading["distance"] < limit]
    return min(equal, key=lambda r: (departures(r), r["distance"]))


def _key(reading: Judged) -> tuple[object, ...]:
    return tuple(reading[name] for name in READING)
