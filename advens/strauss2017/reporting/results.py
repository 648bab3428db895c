"""What the scripts wrote to results/, for whichever tables and data sets are there."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from advens import datasets
from advens.strauss2017 import columns, constants, rows
from advens.strauss2017.columns import Reading
from advens.strauss2017.reporting.manifest import Record

# The paper's data sets come first on every page.
DATASETS: Final = tuple(
    sorted(datasets.NAMES, key=lambda name: name not in constants.TABLE2)
)
ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "table2": rows.TABLE2_ROWS,
    "table4": rows.TABLE4_ROWS,
}
# The paper has one number where we have one for each reading of the labels, and it is
# compared with both: docs/protocol.md, point 11.
LABEL_READING: Final[Reading] = "repredicted_labels"


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTable:
    """A table as its script wrote it.

    Attributes:
        cells: one row per cell: a `cell_frame`, `anomaly_frame`, `noise_frame` or
            `atlas_frame`.
        record: the manifest.
    """

    cells: pd.DataFrame
    record: Record

    @property
    def deviations(self) -> list[str]:
        """In what the run differs from the paper's, see `Run.deviations`."""
        return self.record["differs_from_the_paper"]

    @property
    def scale(self) -> str:
        """A sentence that says whether this is the paper's run or a reduced one."""
        if self.deviations:
            differences = ", ".join(self.deviations)
            return f"**Reduced**: this run differs from the paper in {differences}."
        return "At the paper's scale: everything that the paper states is kept."


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What results/ holds.

    Attributes:
        tables: Tables 2 and 4, by table (`"table2"`, `"table4"`) and data set.
        anomalies: the anomaly, by data set.
        sweeps: the choice of noise, by data set.
        atlases: the atlas of readings, by data set.
        claims: as of `claims.judge_readings`; empty if there are none.
    """

    tables: Mapping[tuple[str, str], StoredTable]
    anomalies: Mapping[str, StoredTable]
    sweeps: Mapping[str, StoredTable]
    atlases: Mapping[str, StoredTable]
    claims: pd.DataFrame


def read_results(results_dir: Path) -> Results:
    """Read what the scripts wrote.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if a table or its manifest is damaged.
    """
    if not results_dir.is_dir():
        raise FileNotFoundError(
            "The results must be in an existing directory. "
            f"Received: {str(results_dir)!r}"
        )
    tables = {
        (table, dataset): _read(results_dir, table, dataset, "_cells.csv")
        for dataset, table in itertools.product(DATASETS, columns.TABLES)
    }
    anomalies = {name: _read(results_dir, "anomaly", name) for name in DATASETS}
    sweeps = {name: _read(results_dir, "noise_sweep", name) for name in DATASETS}
    atlases = {name: _read(results_dir, "atlas", name) for name in DATASETS}
    claims = [pd.read_csv(path) for path in sorted(results_dir.glob("claims*.csv"))]
    return Results(
        tables={key: stored for key, stored in tables.items() if stored},
        anomalies={key: stored for key, stored in anomalies.items() if stored},
        sweeps={key: stored for key, stored in sweeps.items() if stored},
        atlases={key: stored for key, stored in atlases.items() if stored},
        claims=pd.concat(claims) if claims else pd.DataFrame(),
    )


def _read(
    results_dir: Path, script: str, dataset: str, ending: str = ".csv"
) -> StoredTable | None:
    """Read what a script wrote on a data set; return None if it wrote nothing."""
    path = results_dir / f"{script}_{dataset}{ending}"
    record = results_dir / f"{script}_{dataset}.json"
    if not path.exists():
        return None
    try:
        return StoredTable(pd.read_csv(path), json.loads(record.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} or its {record.name} cannot be read ({error}). Make them again "
            f"by: {command(script, dataset)} --out_dir={results_dir}"
        ) from error


def command(script: str, dataset: str) -> str:
    """Return the command that makes the files of a script."""
    return f"python reproduce/{script}.py --dataset={dataset}"


def differences(results: Results) -> pd.DataFrame:
    """Return the mean absolute differences from the paper.

    Returns:
        For each table and data set one row over all numbers that the paper has (attack
        and column are `"all"`); one row with the columns of `LABEL_READING` in the
        place of those that they read in another way (column `"all, repredicted"`);
        then one row per attack and column.
    """
    stand_ins = columns.read_otherwise(LABEL_READING)
    lines = []
    for (table, dataset), stored in results.tables.items():
        cells = beside_the_paper(stored.cells).dropna(subset="difference")
        if cells.empty:
            continue
        paper = columns.paper_cells(table)
        reread = {
            (attack, stand_ins.get((attack, column), column))
            for attack, column in paper
        }
        keys = pd.Series(
            list(zip(cells["attack"], cells["column"], strict=True)), cells.index
        )
        parts = [
            (("all", "all"), cells[keys.isin(paper)]),
            (("all", "all, repredicted"), cells[keys.isin(reread)]),
        ]
        either = cells[keys.isin(paper | reread)]
        for (attack, column), part in either.groupby(["attack", "column"], sort=False):
            parts.append(((str(attack), str(column)), part))
        for (attack, column), part in parts:
            mean = part["difference"].abs().mean()
            # Rounded here, so that the page and the CSV round the same number.
            mean = float(f"{mean:.6g}")
            lines.append((dataset, table, attack, column, len(part), mean))
    names = ["dataset", "table", "attack", "column", "num_cells"]
    return pd.DataFrame(lines, columns=[*names, "mean_absolute_difference"])


def beside_the_paper(cells: pd.DataFrame) -> pd.DataFrame:
    """Set the paper's number beside the columns of `LABEL_READING`, too."""
    reading_of = {
        name: column.reading_of
        for name, column in columns.BY_NAME.items()
        if column.reading == LABEL_READING
    }
    values = cells.set_index(["attack", "method", "column"])["paper"]
    read = cells["column"].replace(reading_of)
    keys = zip(cells["attack"], cells["method"], read, strict=True)
    paper = np.array([values.get(key, np.nan) for key in keys])
    return cells.assign(paper=paper, difference=cells["accuracy"] - paper)
