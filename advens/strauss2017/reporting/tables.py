"""Tables 2 and 4, as CSV and on the terminal, computed from outcomes alone."""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from rich.table import Table

from advens.arrays import Labels
from advens.evaluation.statistics import wilson_interval
from advens.storage.files import write_all
from advens.strauss2017 import columns, rows
from advens.strauss2017.cells import Cell, pack_cells
from advens.strauss2017.reporting.manifest import Record

# What follows a number of Table 4 on the terminal.
BEST_ALONE: Final = "+"
BEST_OF_ALL: Final = "*"


def cell_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return one row per cell.

    It has the accuracy, its Wilson 95 % interval, the lowest and the highest member,
    how often the gradient was exactly zero, the paper's number and the difference.
    """
    lines = []
    for cell in cells:
        members = cell.correct.mean(axis=1)
        num_images = cell.correct.shape[1]
        low, high = wilson_interval(cell.accuracy, num_images)
        zero = cell.zero_gradient
        lines.append(
            {
                "dataset": cell.dataset,
                "attack": cell.attack,
                "method": rows.label(cell.row),
                "column": cell.column,
                "accuracy": cell.accuracy,
                "wilson_low": low,
                "wilson_high": high,
                "lowest_member": members.min(),
                "highest_member": members.max(),
                "num_members": len(members),
                "num_images": num_images,
                "zero_gradient_share": np.nan if zero is None else zero.mean(),
                "right_at_zero_gradient": (
                    np.nan if zero is None else (zero & cell.correct).mean()
                ),
                "paper": np.nan if cell.paper is None else cell.paper,
            }
        )
    frame = pd.DataFrame(lines)
    frame["difference"] = frame["accuracy"] - frame["paper"]
    return frame


def paper_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return the accuracies of a table in the paper's layout.

    Table 2 has one row per attack and method, Table 4 one row per method.
    """
    frame = cell_frame(cells)
    names = _row_names(cells)
    wide = frame.pivot(index=names, columns="column", values="accuracy")
    order = frame[names].drop_duplicates()
    index = order["method"] if len(names) == 1 else pd.MultiIndex.from_frame(order)
    return wide.loc[index, frame["column"].unique()]


def terminal_table(cells: Sequence[Cell], *, title: str) -> Table:
    """Return a table for the terminal, with the paper's numbers below ours.

    In Table 4, `+` marks the best of the methods that stand alone (bold in the paper)
    and `*` the best of all methods, among our numbers and among the paper's.
    """
    names = _row_names(cells)
    shown_columns = list(dict.fromkeys(cell.column for cell in cells))
    table = Table(title=title, show_lines=True)
    for name in (*names, *shown_columns):
        words = name.split("_")
        table.add_column(" ".join(words), min_width=max(map(len, words)))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        rivals = []
        if _is_table4(cells):
            rivals = [rival for rival in cells if rival.column == cell.column]
        shown = f"{cell.accuracy:.4f}" + _marks(cell, rivals, lambda c: c.accuracy)
        if cell.paper is not None:
            marks = _marks(cell, rivals, lambda c: c.paper or 0.0)
            shown += f"\n[dim]{cell.paper:.4f}{marks}[/]"
        values = {"attack": cell.attack, "method": rows.label(cell.row)}
        line = lines.setdefault(tuple(values[name] for name in names), {})
        line[cell.column] = shown
    for key, line in lines.items():
        table.add_row(*key, *(line[column] for column in shown_columns))
    return table


def markdown_table(
    header: Sequence[str], lines: Iterable[Sequence[object]]
) -> list[str]:
    """Return the lines of a Markdown table."""
    whole = [header, ["---"] * len(header), *lines]
    return [f"| {' | '.join(map(str, line))} |" for line in whole]


def lost_class_notes(lost_classes: Mapping[str, Sequence[int]]) -> list[str]:
    """Return a note on each row with a network that has lost a class.

    Args:
        lost_classes: for each row, how many classes each of its members has lost; see
            `outcomes.count_lost_classes`.
    """
    return [
        f"{rows.label(row)}: {np.count_nonzero(lost)} of {len(lost)} networks "
        "recognise some class less often than guessing would (docs/protocol.md, point "
        "26)."
        for row, lost in lost_classes.items()
        if any(lost)
    ]


def write_table(
    cells: Sequence[Cell], record: Record, *, y_test: Labels, out_dir: Path, name: str
) -> list[Path]:
    """Write the four files of a table, each whole or not at all.

    They are `<name>.csv` (the paper's layout), `<name>_cells.csv` (one row per cell),
    `<name>_outcomes.npz` (see `pack_cells`) and `<name>.json` (the manifest).

    Args:
        cells: the cells of Table 2 or 4.
        record: the manifest.
        y_test: `(n,)` int, the labels of the images.
        out_dir: the directory of the files.
        name: how their names begin.

    Returns:
        Their paths.
    """
    contents = {
        f"{name}.csv": paper_frame(cells).to_csv(float_format="%.4f").encode(),
        f"{name}_cells.csv": _csv(cell_frame(cells)),
        **_outcomes_and_manifest(cells, record, y_test, name),
    }
    return write_all(out_dir, contents)


def write_frame(
    frame: pd.DataFrame,
    cells: Sequence[Cell],
    record: Record,
    *,
    y_test: Labels,
    out_dir: Path,
    name: str,
) -> list[Path]:
    """Write a frame and the outcomes behind it: three files, each whole or not at all.

    They are `<name>.csv`, `<name>_outcomes.npz` (see `pack_cells`) and `<name>.json`
    (the manifest).

    Args:
        frame: what the CSV file shows.
        cells: the outcomes, under names that differ.
        record: the manifest.
        y_test: `(n,)` int, the labels of the images.
        out_dir: the directory of the files.
        name: how their names begin.

    Returns:
        Their paths.
    """
    contents = {
        f"{name}.csv": _csv(frame),
        **_outcomes_and_manifest(cells, record, y_test, name),
    }
    return write_all(out_dir, contents)


def _row_names(cells: Sequence[Cell]) -> list[str]:
    """Return what names the rows of the table that these cells belong to."""
    return ["method"] if _is_table4(cells) else ["attack", "method"]


def _is_table4(cells: Sequence[Cell]) -> bool:
    return columns.BY_NAME[cells[0].column] in columns.TABLE4


def _marks(cell: Cell, rivals: Sequence[Cell], value: Callable[[Cell], float]) -> str:
    """Return the marks of a cell among the cells of its column."""
    alone = [rival for rival in rivals if len(rows.parts(rival.row)) == 1]
    marks = ""
    for mark, group in ((BEST_ALONE, alone), (BEST_OF_ALL, rivals)):
        if cell in group and value(cell) == max(map(value, group)):
            marks += mark
    return marks


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, float_format="%.6g").encode()


def _outcomes_and_manifest(
    cells: Sequence[Cell], record: Record, y_test: Labels, name: str
) -> dict[str, bytes]:
    outcomes = io.BytesIO()
    np.savez_compressed(outcomes, **pack_cells(cells, y_test))  # type: ignore[arg-type]
    return {
        f"{name}_outcomes.npz": outcomes.getvalue(),
        f"{name}.json": (json.dumps(record, indent=2) + "\n").encode(),
    }
