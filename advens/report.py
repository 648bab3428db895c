"""What the scripts wrote to results/, whatever rows and data sets that holds."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from advens import paper, tables

NAMES: Final = {
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "digits": "Digits (not in the paper)",
}
ROWS: Final = {
    "table2": tuple(paper.METHODS),
    "table4": tuple(paper.TABLE4["mnist"]),
}
# The paper has one number where we have two readings of the labels.
_REREAD: Final = {ours: theirs for theirs, ours in tables.REPREDICTED.items()}
# What is compared with the paper: every number that it has, once.
_COMPARED: Final = {
    "table2": {
        *itertools.product(["FGSM"], paper.TABLE2_COLUMNS),
        *itertools.product(["BIM"], paper.TABLE2_COLUMNS[2:]),
    },
    "table4": {("none", "no_attack"), ("FGSM", "fgsm"), ("BIM", "bim")},
}
# The same, in the other reading of BIM's labels: docs/protocol.md, "The anomaly".
_COMPARED_REPREDICTED: Final = {
    table: {
        (attack, tables.REPREDICTED.get(column, column) if attack == "BIM" else column)
        for attack, column in cells
    }
    for table, cells in _COMPARED.items()
}


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A table as its script wrote it.

    Attributes:
        cells: a row a cell, as of `tidy` in `tables`, `anomaly` or `noise_sweep`.
        record: the manifest.
    """

    cells: pd.DataFrame
    record: Mapping[str, Any]

    @property
    def scale(self) -> str:
        """A sentence: whether it is the paper's run or a reduced one."""
        if differs := self.record["differs_from_the_paper"]:
            return f"**Reduced**: it differs from the paper in {', '.join(differs)}."
        return "At the paper's scale: what it states is kept."


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What results/ holds.

    Attributes:
        tables: by table (`"table2"`, `"table4"`) and data set.
        anomalies: by data set.
        sweeps: of the noise, by data set.
        claims: as of `claims.judge`; empty if there are none.
    """

    tables: Mapping[tuple[str, str], Stored]
    anomalies: Mapping[str, Stored]
    sweeps: Mapping[str, Stored]
    claims: pd.DataFrame


def load(results_dir: Path) -> Results:
    """Read what the scripts wrote.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if a table or its manifest is damaged.
    """
    if not results_dir.is_dir():
        raise FileNotFoundError(
            "`out_dir` must be a directory, that of the tables. "
            f"Received: out_dir={str(results_dir)!r}"
        )

    def stored(name: str, dataset: str, ending: str) -> Iterator[Stored]:
        stem = results_dir / f"{name}_{dataset}"
        path, record = (stem.with_name(stem.name + e) for e in (ending, ".json"))
        if path.exists():
            try:
                cells = pd.read_csv(path)
                yield Stored(cells, json.loads(record.read_text("utf-8")))
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{path} or its {record.name} cannot be read ({error}). Make them "
                    f"again by: {command(name, dataset)} --out_dir={results_dir}"
                ) from error

    def by_dataset(name: str) -> dict[str, Stored]:
        return {
            dataset: found
            for dataset in NAMES
            for found in stored(name, dataset, ".csv")
        }

    claims = [pd.read_csv(path) for path in sorted(results_dir.glob("claims*.csv"))]
    return Results(
        tables={
            (table, dataset): found
            for dataset, table in itertools.product(NAMES, ROWS)
            for found in stored(table, dataset, "_cells.csv")
        },
        anomalies=by_dataset("anomaly"),
        sweeps=by_dataset("noise_sweep"),
        claims=pd.concat(claims) if claims else pd.DataFrame(),
    )


def command(script: str, dataset: str) -> str:
    """Return the command that makes a file."""
    return f"python reproduce/{script}.py --dataset={dataset}"


def differences(results: Results) -> pd.DataFrame:
    """Return the mean absolute differences from the paper, over what is compared.

    Returns:
        For each table and data set a row over all columns (attack and column are
        `"all"`), one with BIM's labels predicted again where there is such a column
        (column `"all, repredicted"`), then a row a column.
    """
    rows = []
    for (table, dataset), stored in results.tables.items():
        cells = compared(stored.cells).dropna(subset="difference")
        keys = list(zip(cells["attack"], cells["column"], strict=True))
        first, second = _COMPARED[table], _COMPARED_REPREDICTED[table]
        true, repredicted, either = (
            cells[np.array([key in chosen for key in keys], bool)]
            for chosen in (first, second, first | second)
        )
        parts = [
            (("all", "all"), true),
            (("all", "all, repredicted"), repredicted),
            *either.groupby(["attack", "column"], sort=False),
        ]
        for key, part in parts if len(cells) else ():
            mean = part["difference"].abs().mean()
            # Rounded here, so that page and CSV round further alike.
            rows.append((dataset, table, *key, len(part), float(f"{mean:.6g}")))
    names = ["dataset", "table", "attack", "column", "num_cells"]
    return pd.DataFrame(rows, columns=[*names, "mean_absolute_difference"])


def compared(cells: pd.DataFrame) -> pd.DataFrame:
    """Set the paper's value beside each of its readings."""
    values = cells.set_index(["attack", "method", "column"])["paper"]
    read = cells["column"].replace(_REREAD)
    keys = zip(cells["attack"], cells["method"], read, strict=True)
    theirs = np.array([values.get(key, np.nan) for key in keys])
    return cells.assign(paper=theirs, difference=cells["accuracy"] - theirs)
