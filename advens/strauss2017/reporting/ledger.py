"""The ledger of the paper's claims: its outcomes, its page, its files."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from rich.table import Table

from advens import datasets
from advens.storage.files import write_all
from advens.strauss2017 import columns
from advens.strauss2017.cells import Cell, unpack_cells
from advens.strauss2017.claims import ALPHA, MISSING, NOT_REPRODUCED, OPEN, REPRODUCED
from advens.strauss2017.reporting.results import command
from advens.strauss2017.reporting.tables import markdown_table

_HEADER: Final = (
    "claim",
    "section",
    "what it says",
    "held",
    "largest p",
    "verdict",
    "because",
    *(f"with {reading.replace('_', ' ')}" for reading in columns.READINGS),
)
_INTRODUCTION: Final = (
    "# The paper's claims",
    "",
    f"A claim rests on one or more comparisons. It is *{REPRODUCED}* if all of them "
    f"hold and *{NOT_REPRODUCED}* if one of them is reversed. If none is reversed, it "
    f"is *{MISSING}* where a cell is missing and *{OPEN}* where a difference may be "
    "due to chance. The comparisons are two-sided tests on the same test images, "
    f"Holm-adjusted over all comparisons of a data set, at a level of {ALPHA:g}. They "
    "say what further test images would show for these networks, not what newly "
    "trained networks would show.",
    "",
    "The verdict reads the paper's columns with true labels and with the loss as its "
    "framework computes it. The last two columns judge each claim once more: with the "
    "labels of BIM through Grad. 2 predicted again at every step, and with exact "
    "gradients in Table 2 (docs/protocol.md, points 11 and 12). A dash means that the "
    "claim rests on the same cells as before, or says itself how labels are read.",
)


def read_cells(results_dir: Path) -> tuple[list[Cell], list[str]]:
    """Read the outcomes that the scripts of Tables 2 and 4 wrote.

    Returns:
        The cells, and one line per file: how many images it has, and in what its run
        differs from the paper's.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is damaged, or if the tables of a data set are of
            different images.
    """
    cells: list[Cell] = []
    notes = []
    images_of: dict[str, str] = {}
    for table, dataset in _tables():
        path = results_dir / f"{table}_{dataset}_outcomes.npz"
        if not path.exists():
            continue
        try:
            with np.load(path) as arrays:
                of_table = unpack_cells(dict(arrays))
            record = json.loads((results_dir / f"{table}_{dataset}.json").read_text())
            differences = ", ".join(record["differs_from_the_paper"])
            images, seed = record["data"]["sha256"]["test"], record["seeds"]["run"]
        # A damaged archive fails in many ways: BadZipFile, EOFError, zlib.error, ...
        except Exception as error:
            raise ValueError(
                f"{path} or its .json cannot be read ({error}). Make them again by: "
                f"{command(table, dataset)} --out_dir={results_dir}"
            ) from error
        if images != images_of.setdefault(dataset, images):
            raise ValueError(
                f"Tables 2 and 4 on {dataset} must be of the same test images. "
                f"Received: SHA-256 {images_of[dataset]} and {images}"
            )
        cells += of_table
        notes.append(
            f"{path.name}: {of_table[0].correct.shape[1]} test images, run seed "
            f"{seed}; differs from the paper: {differences or 'no'}"
        )
    if not cells:
        table, dataset = next(_tables())
        raise FileNotFoundError(
            f"{results_dir / table}_{dataset}_outcomes.npz is missing, and so are the "
            "outcomes of all other tables and data sets. Make it by: "
            f"{command(table, dataset)} --out_dir={results_dir}"
        )
    return cells, notes


def _tables() -> Iterator[tuple[str, str]]:
    for dataset, table in itertools.product(datasets.NAMES, columns.TABLES):
        yield table, dataset


def ledger_page(frame: pd.DataFrame, notes: Sequence[str]) -> str:
    """Return the ledger as a page with one table per data set.

    Args:
        frame: as of `claims.judge_readings`.
        notes: as of `read_cells`.
    """
    lines = [*_INTRODUCTION, "", *(f"- {note}" for note in notes)]
    for dataset, part in frame.groupby("dataset", sort=False):
        table = [
            [
                f"`{row['key']}`",
                row["section"],
                row["claim"],
                f"{row['held']}/{row['total']}",
                _p_value(row["largest_adjusted_p"]),
                row["verdict"],
                row["reason"],
                *(row[f"verdict_{reading}"] or "–" for reading in columns.READINGS),
            ]
            for row in part.to_dict("records")
        ]
        lines += ["", f"## {dataset}", "", *markdown_table(_HEADER, table)]
    return "\n".join(lines) + "\n"


def terminal_ledger(frame: pd.DataFrame) -> Table:
    """Return the ledger for the terminal."""
    table = Table(title="The paper's claims", show_lines=True)
    for name in ("data set", "claim", "held", "largest p", "verdict"):
        table.add_column(name)
    colors = {REPRODUCED: "green", NOT_REPRODUCED: "red"}
    for row in frame.to_dict("records"):
        table.add_row(
            row["dataset"],
            f"{row['key']}\n[dim]{row['claim']}[/]",
            f"{row['held']}/{row['total']}",
            _p_value(row["largest_adjusted_p"]),
            f"[{colors.get(row['verdict'], 'yellow')}]{row['verdict']}[/]",
        )
    return table


def write_ledger(
    frame: pd.DataFrame, notes: Sequence[str], *, out_dir: Path
) -> list[Path]:
    """Write `claims.csv` and `claims.md`, each whole or not at all.

    Args:
        frame: as of `claims.judge_readings`.
        notes: as of `read_cells`.
        out_dir: the directory of the files.

    Returns:
        Their paths.
    """
    contents = {
        "claims.csv": frame.to_csv(index=False, float_format="%.4g").encode(),
        "claims.md": ledger_page(frame, notes).encode(),
    }
    return write_all(out_dir, contents)


def _p_value(p: float) -> str:
    return "–" if np.isnan(p) else f"{p:.2g}"
