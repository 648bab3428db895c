"""Tables 2 and 4, as CSV and on the terminal, computed from outcomes alone."""

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from rich.table import Table

from advens import paper, recipes
from advens.files import write_all
from advens.statistics import wilson_interval

TABLE2_COLUMNS: Final = {
    "no_attack_single": "no attack, mean of the members",
    "no_attack_ensemble": "no attack, ensemble",
    "grad1_single": "each member under its own gradient, mean",
    "grad1_ensemble": "ensemble under one member's gradient, mean over the members",
    "grad2_ensemble": "ensemble under the mean of the members' gradients",
    "grad2_ensemble_repredicted": (
        "the same, each member's label predicted again at every step"
    ),
    "ensemble_gradient": "ensemble under the gradient of its own loss",
    "grad1_single_exact": "grad1_single, by gradients without cancellation",
    "grad1_ensemble_exact": "grad1_ensemble, likewise",
    "grad2_ensemble_exact": "grad2_ensemble, likewise",
}
TABLE4_COLUMNS: Final = {
    "no_attack": "no attack",
    "fgsm": "FGSM through Grad. 2, of a single network through its own gradient",
    "bim": "BIM, likewise",
    "bim_repredicted": "BIM, each member's label predicted again at every step",
    "fgsm_ensemble_gradient": "FGSM through the gradient of the ensemble's own loss",
    "bim_ensemble_gradient": "BIM, likewise",
}
# Columns of the paper, and those that read the labels, or the loss, otherwise.
REPREDICTED: Final = {
    "grad2_ensemble": "grad2_ensemble_repredicted",
    "bim": "bim_repredicted",
}
EXACT: Final = {
    column: f"{column}_exact"
    for column in ("grad1_single", "grad1_ensemble", "grad2_ensemble")
}


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One number of a table, image by image.

    Attributes:
        dataset: name of the data set.
        attack: `"FGSM"`, `"BIM"` or `"none"`; in Table 2 the row's, also where the
            column has no attack.
        row: the row's name, see `recipes.label`.
        column: the column's name.
        correct: `(k, n)` bool: right answers of the `k` members, or of the ensemble in
            the `k` attacks, whose mean the cell shows, on `n` images.
        zero_gradient: `(k, n)` bool, see `attacks.Adversarial`; None without attack.
    """

    dataset: str
    attack: str
    row: str
    column: str
    correct: np.ndarray
    zero_gradient: np.ndarray | None = None

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float(self.correct.mean())

    @property
    def paper(self) -> float | None:
        """What the paper's Table 2 or 4 has here."""
        values: tuple[float, ...] | None
        if self.column in paper.TABLE2_COLUMNS:
            columns = paper.TABLE2_COLUMNS
            values = paper.TABLE2.get(self.dataset, {}).get((self.attack, self.row))
        else:
            columns = paper.TABLE4_COLUMNS
            values = paper.TABLE4.get(self.dataset, {}).get(self.row)
        if values is None or self.column not in columns:
            return None
        return values[columns.index(self.column)]


def tidy(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return a row a cell: accuracy, Wilson 95 % interval, range, the paper's value."""
    rows = []
    for cell in cells:
        each = cell.correct.mean(axis=1)
        num_images = cell.correct.shape[1]
        low, high = wilson_interval(cell.accuracy, num_images)
        zero = cell.zero_gradient
        rows.append(
            {
                "dataset": cell.dataset,
                "attack": cell.attack,
                "method": recipes.label(cell.row),
                "column": cell.column,
                "accuracy": cell.accuracy,
                "wilson_low": low,
                "wilson_high": high,
                "lowest_member": each.min(),
                "highest_member": each.max(),
                "num_members": len(each),
                "num_images": num_images,
                "zero_gradient_share": np.nan if zero is None else zero.mean(),
                "right_at_zero_gradient": (
                    np.nan if zero is None else (zero & cell.correct).mean()
                ),
                "paper": np.nan if cell.paper is None else cell.paper,
            }
        )
    frame = pd.DataFrame(rows)
    frame["difference"] = frame["accuracy"] - frame["paper"]
    return frame


def wide(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return the paper's layout.

    Table 2 has a row an attack and method, Table 4 a row a method.
    """
    frame = tidy(cells)
    names = ["method"] if _is_table4(cells) else ["attack", "method"]
    wide = frame.pivot(index=names, columns="column", values="accuracy")
    order = frame[names].drop_duplicates()
    rows = order["method"] if _is_table4(cells) else pd.MultiIndex.from_frame(order)
    return wide.loc[rows, frame["column"].unique()]


def render(cells: Sequence[Cell], *, title: str) -> Table:
    """Return the table for the terminal, the paper's values beneath ours.

    In Table 4, `+` marks the best of the methods that stand alone (the paper's bold)
    and `*` the best of all, among our values and among the paper's.
    """
    table4 = _is_table4(cells)
    table = Table(title=title, show_lines=True)
    columns = list(dict.fromkeys(cell.column for cell in cells))
    for name in (*(("method",) if table4 else ("attack", "method")), *columns):
        words = name.split("_")
        table.add_column(" ".join(words), min_width=max(map(len, words)))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        rivals = [c for c in cells if c.column == cell.column] if table4 else []
        shown = f"{cell.accuracy:.4f}" + _marks(cell, rivals, lambda c: c.accuracy)
        if cell.paper is not None:
            marks = _marks(cell, rivals, lambda c: c.paper or 0.0)
            shown += f"\n[dim]{cell.paper:.4f}{marks}[/]"
        name = recipes.label(cell.row)
        row = rows.setdefault((name,) if table4 else (cell.attack, name), {})
        row[cell.column] = shown
    for names, row in rows.items():
        table.add_row(*names, *(row[column] for column in columns))
    return table


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def lost_class_notes(lost_classes: Mapping[str, Sequence[int]]) -> list[str]:
    """Name the rows with a network that has lost a class.

    Args:
        lost_classes: see `experiments.Run`.
    """
    return [
        f"{recipes.label(row)}: networks that recognise some class less often than "
        f"guessing would: {np.count_nonzero(lost)} of {len(lost)} (docs/protocol.md, "
        "point 26)."
        for row, lost in lost_classes.items()
        if any(lost)
    ]


def _marks(cell: Cell, rivals: Sequence[Cell], value: Callable[[Cell], float]) -> str:
    alone = [rival for rival in rivals if "+" not in rival.row]
    marks = ""
    for mark, group in (("+", alone), ("*", rivals)):
        if cell in group and value(cell) == max(map(value, group)):
            marks += mark
    return marks


def _is_table4(cells: Sequence[Cell]) -> bool:
    return cells[0].column in TABLE4_COLUMNS


def write(
    cells: Sequence[Cell],
    manifest: Mapping[str, Any],
    *,
    y_test: np.ndarray,
    out_dir: Path,
    name: str,
) -> list[Path]:
    """Write the table's four files, each whole or not at all.

    They are `<name>.csv` (the paper's layout), `<name>_cells.csv` (tidy),
    `<name>_outcomes.npz` (see `pack`) and `<name>.json` (the manifest).

    Returns:
        Their paths.
    """
    contents = {
        f"{name}.csv": wide(cells).to_csv(float_format="%.4f").encode(),
        f"{name}_cells.csv": _csv(tidy(cells)),
        **_record(cells, y_test, manifest, name),
    }
    return write_all(out_dir, contents)


def write_tidy(
    frame: pd.DataFrame,
    cells: Sequence[Cell],
    manifest: Mapping[str, Any],
    *,
    y_test: np.ndarray,
    out_dir: Path,
    name: str,
) -> list[Path]:
    """Write three files, each whole or not at all.

    They are `<name>.csv`, `<name>_outcomes.npz` (see `pack`) and `<name>.json` (the
    manifest).

    Returns:
        Their paths.
    """
    contents = {f"{name}.csv": _csv(frame), **_record(cells, y_test, manifest, name)}
    return write_all(out_dir, contents)


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, float_format="%.6g").encode()


def _record(
    cells: Sequence[Cell], y_test: np.ndarray, manifest: Mapping[str, Any], name: str
) -> dict[str, bytes]:
    outcomes = io.BytesIO()
    np.savez_compressed(outcomes, **pack(cells, y_test))  # type: ignore[arg-type]
    return {
        f"{name}_outcomes.npz": outcomes.getvalue(),
        f"{name}.json": (json.dumps(manifest, indent=2) + "\n").encode(),
    }


def pack(cells: Sequence[Cell], y_test: np.ndarray) -> dict[str, np.ndarray]:
    """Turn cells into arrays of one bit an image; `unpack` is the way back.

    `<attack>/<row>/<column>/correct` and `.../zero_gradient` are `(k, ceil(n / 8))`
    uint8 as of `np.packbits`, `y_test` is the labels of the n images in their order.
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


def unpack(arrays: Mapping[str, np.ndarray]) -> list[Cell]:
    """Return the cells that `pack` packed."""
    count = int(arrays["num_images"])

    def bits(packed: np.ndarray) -> np.ndarray:
        return np.unpackbits(packed, axis=1, count=count).astype(bool)

    keys = [key.rsplit("/", 1)[0] for key in arrays if key.endswith("/correct")]
    return [
        Cell(
            dataset=str(arrays["dataset"]),
            **dict(zip(("attack", "row", "column"), key.split("/"), strict=True)),
            correct=bits(arrays[f"{key}/correct"]),
            zero_gradient=(
                bits(arrays[f"{key}/zero_gradient"])
                if f"{key}/zero_gradient" in arrays
                else None
            ),
        )
        for key in keys
    ]
