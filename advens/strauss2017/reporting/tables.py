"""Tables 2 and 4, as CSV and on the terminal, computed from outcomes alone."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from advens.arrays import Labels
from advens.evaluation.statistics import wilson_interval
from advens.storage.files import write_all
from advens.strauss2017 import rows
from advens.strauss2017.cells import Cell, pack_cells
from advens.strauss2017.reporting.manifest import Record
from advens.strauss2017.reporting.table_layout import row_names, with_marks


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
    names = row_names(frame)
    wide = frame.pivot(index=names, columns="column", values="accuracy")
    order = frame[names].drop_duplicates()
    index = order["method"] if len(names) == 1 else pd.MultiIndex.from_frame(order)
    return wide.loc[index, frame["column"].unique()]


def terminal_table(cells: Sequence[Cell], *, title: str) -> Table:
    """Return a table for the terminal, with the paper's numbers below ours.

    In Table 4 the best of our numbers and of the paper's are marked, see `with_marks`.
    """
    frame = with_marks(cell_frame(cells))
    names = row_names(frame)
    shown_columns = list(frame["column"].unique())
    table = Table(title=title, show_lines=True)
    for name in (*names, *shown_columns):
        words = name.split("_")
        table.add_column(" ".join(words), min_width=max(map(len, words)))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in frame.to_dict("records"):
        shown = f"{cell['accuracy']:.4f}{cell['marks']}"
        if not np.isnan(cell["paper"]):
            shown += f"\n[dim]{cell['paper']:.4f}{cell['paper_marks']}[/]"
        line = lines.setdefault(tuple(cell[name] for name in names), {})
        line[cell["column"]] = shown
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
