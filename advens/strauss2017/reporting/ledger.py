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
from advens.strauss2017.reporting.manifest import reading_name
from advens.strauss2017.reporting.results import command, datasets_in
from advens.strauss2017.reporting.tables import markdown_table

_HEADER: Final = (
    *("claim", "section", "what it says", "held", "largest p", "verdict", "because"),
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
    "The verdict reads the paper's columns with the labels of the table's reading and "
    "with the loss as its framework computes it. The last columns judge each claim "
    "once more: with other labels under BIM through Grad. 2, with exact gradients in "
    "Table 2 (docs/protocol.md, points 11 and 12), and on the tables of other "
    "readings. A dash means that the claim rests on the same cells as before, or that "
    "there are none.",
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
    for table, dataset in _tables(results_dir):
        path = results_dir / f"{table}_{dataset}_outcomes.npz"
        if not path.exists():
            continue
        try:
            with np.load(path) as arrays:
                of_table = unpack_cells(dict(arrays))
            record = json.loads((results_dir / f"{table}_{dataset}.json").read_text())
            differences = ", ".join(record["differs_from_the_paper"])
            images, seed = record["data"]["sha256"]["test"], record["seeds"]["run"]
            reading = reading_name(record)
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
            f"{path.name}: reading {reading}, {of_table[0].correct.shape[1]} test "
            f"images, run seed {seed}; differs from the paper: {differences or 'no'}"
        )
    if not cells:
        table, dataset = next(_tables(results_dir))
        raise FileNotFoundError(
            f"{results_dir / table}_{dataset}_outcomes.npz is missing, and so are the "
            "outcomes of all other tables and data sets. Make it by: "
            f"{command(table, dataset)} --out_dir={results_dir}"
        )
    return cells, notes


def _tables(results_dir: Path) -> Iterator[tuple[str, str]]:
    names = sorted(datasets_in(results_dir), key=lambda name: name != datasets.NAMES[0])
    for dataset, table in itertools.product(names, columns.TABLES):
        yield table, dataset


def ledger_page(frame: pd.DataFrame, notes: Sequence[str]) -> str:
    """Return the ledger as a page with one table per data set.

    Args:
        frame: as of `claims.judge_alternatives` and `with_other_reading`.
        notes: as of `read_cells`.
    """
    again = [str(name) for name in frame if str(name).startswith("verdict_")]
    header = [*_HEADER, *(name.split("_", 1)[1].replace("_", " ") for name in again)]
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
                *(row[name] or "–" for name in again),
            ]
            for row in part.to_dict("records")
        ]
        lines += ["", f"## {dataset}", "", *markdown_table(header, table)]
    return "\n".join(lines) + "\n"


def with_other_reading(
    frame: pd.DataFrame, other: pd.DataFrame, reading: str
) -> pd.DataFrame:
    """Set the verdicts in another reading beside those of a ledger.

    Args:
        frame: as of `claims.judge_alternatives`.
        other: likewise, from the tables of the other reading.
        reading: its name: the new column is called `verdict_<reading>`.
    """
    verdicts = other[["dataset", "key", "verdict"]]
    verdicts = verdicts.rename(columns={"verdict": f"verdict_{reading}"})
    return frame.merge(verdicts, how="left").fillna({f"verdict_{reading}": ""})


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
        frame: as of `claims.judge_alternatives`.
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
