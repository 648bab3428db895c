"""The ledger of the paper's claims: what it is read from, its page, its files."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from rich.table import Table

from advens import paper, tables
from advens.claims import ALPHA, MISSING, NOT_REPRODUCED, OPEN, READINGS, REPRODUCED
from advens.files import write_all
from advens.report import command
from advens.tables import Cell

_HEADER: Final = (
    *("claim", "section", "what it says", "held", "largest p", "verdict"),
    *("because", *(f"with {name.replace('_', ' ')}" for name in READINGS)),
)


def load(results_dir: Path) -> tuple[list[Cell], list[str]]:
    """Read the outcomes that the scripts of Tables 2 and 4 wrote.

    Returns:
        The cells, and a line a file: its images, and what in its run was not the
        paper's.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if one is damaged.
    """
    cells: list[Cell] = []
    notes = []
    seen: dict[str, str] = {}
    for stem in _stems():
        path = results_dir / f"{stem}_outcomes.npz"
        if not path.exists():
            continue
        try:
            with np.load(path) as arrays:
                found = tables.unpack(dict(arrays))
            record = json.loads((results_dir / f"{stem}.json").read_text())
            differs = ", ".join(record["differs_from_the_paper"])
            images, seed = record["data"]["sha256"]["test"], record["seeds"]["run"]
        # A damaged archive fails in many ways: BadZipFile, EOFError, zlib.error, ...
        except Exception as error:
            raise ValueError(
                f"{path} or its .json cannot be read ({error}). Make them again by: "
                f"{_command(stem, results_dir)}"
            ) from error
        dataset = found[0].dataset
        if images != seen.setdefault(dataset, images):
            raise ValueError(
                f"Tables 2 and 4 on {dataset} must be of the same test images. "
                f"Received: SHA-256 {seen[dataset]} and {images}"
            )
        cells += found
        notes.append(
            f"{path.name}: {found[0].correct.shape[1]} test images, run seed {seed}; "
            f"differs from the paper: {differs or 'no'}"
        )
    if not cells:
        first = next(_stems())
        raise FileNotFoundError(
            f"{results_dir / first}_outcomes.npz is missing, and so are those of the "
            f"other tables and data sets. Make it by: {_command(first, results_dir)}"
        )
    return cells, notes


def _stems() -> Iterator[str]:
    for dataset, table in itertools.product(paper.EPOCHS, ("table2", "table4")):
        yield f"{table}_{dataset}"


def _command(stem: str, out_dir: Path) -> str:
    return f"{command(*stem.split('_'))} --out_dir={out_dir}"


def markdown(frame: pd.DataFrame, notes: Sequence[str]) -> str:
    """Return the ledger as a page: a table a data set.

    Args:
        frame: as of `claims.judge_readings`.
        notes: as of `load`.
    """
    lines = [
        "# The paper's claims",
        "",
        "A claim is reproduced if each comparison that it rests on holds, and not if "
        "one is reversed: two-sided tests on the same test images, Holm-adjusted "
        f"over all comparisons of a data set, at {ALPHA:g}. If none is reversed, it "
        f"is *{MISSING}* where a cell is missing, and *{OPEN}* where a difference may "
        "be chance. The tests speak of further images for these networks, not of "
        "networks trained anew. The paper's columns are read with true labels and "
        "with the loss as its framework computes it; the last two columns judge once "
        "more with the labels of BIM through Grad. 2 predicted again at every step, "
        "and with exact gradients in Table 2 (docs/protocol.md, points 11 and 12). "
        "–: the same cells.",
        "",
        *(f"- {note}" for note in notes),
    ]
    for dataset, part in frame.groupby("dataset", sort=False):
        lines += [
            "",
            f"## {dataset}",
            "",
            *tables.markdown(
                _HEADER,
                [
                    [
                        *(f"`{row['key']}`", row["section"], row["claim"]),
                        f"{row['held']}/{row['total']}",
                        _shown(row["largest_adjusted_p"]),
                        *(row["verdict"], row["reason"]),
                        *(row[f"verdict_{name}"] or "–" for name in READINGS),
                    ]
                    for row in part.to_dict("records")
                ],
            ),
        ]
    return "\n".join(lines) + "\n"


def render(frame: pd.DataFrame) -> Table:
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
            _shown(row["largest_adjusted_p"]),
            f"[{colors.get(row['verdict'], 'yellow')}]{row['verdict']}[/]",
        )
    return table


def _shown(p: float) -> str:
    return "–" if np.isnan(p) else f"{p:.2g}"


def write(frame: pd.DataFrame, notes: Sequence[str], *, out_dir: Path) -> list[Path]:
    """Write `claims.csv` and `claims.md`, each whole or not at all.

    Returns:
        Their paths.
    """
    contents = {
        "claims.csv": frame.to_csv(index=False, float_format="%.4g").encode(),
        "claims.md": markdown(frame, notes).encode(),
    }
    return write_all(out_dir, contents)
