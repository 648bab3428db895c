"""The choice of Gauss Noise as a frame and on the terminal."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
from rich.table import Table

from advens.strauss2017.cells import Cell
from advens.strauss2017.reporting.tables import cell_frame


def noise_frame(cells: Mapping[float, Cell]) -> pd.DataFrame:
    """Return one row per noise: `noise_std`, and what `cell_frame` has of a cell.

    `closest` is True for the noise with the smallest `difference` from the paper. It is
    False for all if the paper has no number.

    Args:
        cells: by noise, as of `noise_sweep.measure_noise`.
    """
    frame = cell_frame(list(cells.values()))
    frame = frame.drop(columns=["attack", "zero_gradient_share"])
    frame.insert(3, "noise_std", list(cells))
    distance = frame["difference"].abs()
    return frame.assign(closest=distance == distance.min())


def noise_cells_to_pack(cells: Mapping[float, Cell]) -> list[Cell]:
    """Return the cells under names that differ, as `pack_cells` needs them."""
    return [
        dataclasses.replace(cell, attack="none", column=f"noise_std={noise_std:g}")
        for noise_std, cell in cells.items()
    ]


def terminal_noise(frame: pd.DataFrame, *, title: str) -> Table:
    """Return the accuracies by noise, for the terminal.

    Args:
        frame: as of `noise_frame`.
        title: the title of the table.
    """
    table = Table(title=title)
    for name in ("noise_std", "accuracy", "95 % interval", "paper", "difference", ""):
        table.add_column(name)
    for row in frame.to_dict("records"):
        paper, difference = "–", "–"
        if not np.isnan(row["paper"]):
            paper, difference = f"{row['paper']:.4f}", f"{row['difference']:+.4f}"
        table.add_row(
            f"{row['noise_std']:g}",
            f"{row['accuracy']:.4f}",
            f"{row['wilson_low']:.4f} to {row['wilson_high']:.4f}",
            paper,
            difference,
            "closest" if row["closest"] else "",
        )
    return table
