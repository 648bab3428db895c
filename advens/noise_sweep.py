"""How strong Gauss Noise is, found by accuracy without attack alone.

The paper calls its noise small. The reading is the standard deviation at which a single
network's accuracy without attack comes closest to the paper's (docs/protocol.md, point
8); no attacked image is looked at.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from rich.table import Table

from advens import tables
from advens.experiments import Run
from advens.tables import Cell

ROW: Final = "gauss_noise"


def measure(run: Run, noise_stds: Sequence[float]) -> dict[float, Cell]:
    """Train single networks on each noise and let them answer without attack.

    Args:
        run: its settings; its `num_members` networks for each noise have the same seeds
            as the first members of Gauss Noise in Table 2.
        noise_stds: standard deviations, >= 0, in units of the [0, 1] range, each once.

    Returns:
        For each the cell that Table 2 calls `no_attack_single`.

    Raises:
        ValueError: if there are none, or one is out of range.
    """
    if not noise_stds:
        raise ValueError("`noise_stds` must be one or more numbers. Received: none")
    groups = {}
    for noise_std in noise_stds:
        settings = dataclasses.replace(run.settings, noise_std=noise_std)
        groups[noise_std] = dataclasses.replace(run, settings=settings).members(ROW)
    run.train(ROW, [member for group in groups.values() for member in group])
    cells = {}
    for noise_std, group in groups.items():
        [found] = run.outcomes(ROW, group, [None])
        correct = found["none"].members
        cells[noise_std] = Cell(
            run.dataset.name, "FGSM", ROW, "no_attack_single", correct
        )
    return cells


def tidy(cells: Mapping[float, Cell]) -> pd.DataFrame:
    """Return a row a noise: accuracy, Wilson 95 % interval, range, the paper's value.

    `closest` is True where `difference` is smallest, as far as the paper has a value.
    """
    frame = tables.tidy(list(cells.values()))
    frame = frame.drop(columns=["attack", "zero_gradient_share"])
    frame.insert(3, "noise_std", list(cells))
    distance = frame["difference"].abs()
    return frame.assign(closest=distance == distance.min())


def packed(cells: Mapping[float, Cell]) -> list[Cell]:
    """Return the cells for `tables.pack`, under names that tell one from another."""
    return [
        dataclasses.replace(cell, attack="none", column=f"noise_std={noise_std:g}")
        for noise_std, cell in cells.items()
    ]


def render(frame: pd.DataFrame, *, title: str) -> Table:
    """Return the sweep for the terminal.

    Args:
        frame: as of `tidy`.
        title: of the table.
    """
    table = Table(title=title)
    for name in ("noise_std", "accuracy", "95 % interval", "paper", "difference", ""):
        table.add_column(name)
    for row in frame.to_dict("records"):
        known = not np.isnan(row["paper"])
        table.add_row(
            f"{row['noise_std']:g}",
            f"{row['accuracy']:.4f}",
            f"{row['wilson_low']:.4f} to {row['wilson_high']:.4f}",
            f"{row['paper']:.4f}" if known else "–",
            f"{row['difference']:+.4f}" if known else "–",
            "closest" if row["closest"] else "",
        )
    return table
