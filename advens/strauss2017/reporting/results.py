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
from advens.strauss2017.columns import LABEL_ALTERNATIVES
from advens.strauss2017.readings import READINGS
from advens.strauss2017.reporting.manifest import Record, reading_name

# The paper's data sets come first on every page.
DATASETS: Final = tuple(
    sorted(datasets.NAMES, key=lambda name: name not in constants.TABLE2)
)
ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "table2": rows.TABLE2_ROWS,
    "table4": rows.TABLE4_ROWS,
}


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
        """Which reading this is, and whether it is the paper's run or a reduced one."""
        reading = f"Reading *{reading_name(self.record)}*."
        if self.deviations:
            differences = ", ".join(self.deviations)
            return (
                f"{reading} **Reduced**: this run differs from the paper in "
                f"{differences}."
            )
        return (
            f"{reading} At the paper's scale: everything that the paper states is kept."
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What results/ holds.

    Attributes:
        tables: Tables 2 and 4, by table (`"table2"`, `"table4"`) and data set.
        anomalies: the anomaly, by data set.
        sweeps: the choice of noise, by data set.
        atlases: the atlas of readings, by data set.
        defense_points: the open points of Table 4, by data set.
        claims: the ledger, see `ledger.write_ledger`; empty if there is none.
        other_readings: what lies in directories of the names of readings, by name.
    """

    tables: Mapping[tuple[str, str], StoredTable]
    anomalies: Mapping[str, StoredTable]
    sweeps: Mapping[str, StoredTable]
    atlases: Mapping[str, StoredTable]
    defense_points: Mapping[str, StoredTable]
    claims: pd.DataFrame
    other_readings: Mapping[str, "Results"]


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
        (table, dataset): read_stored(results_dir, table, dataset)
        for dataset, table in itertools.product(
            datasets_in(results_dir), columns.TABLES
        )
    }

    def by_dataset(script: str) -> dict[str, StoredTable]:
        stored = {name: read_stored(results_dir, script, name) for name in DATASETS}
        return {name: table for name, table in stored.items() if table}

    claims = [pd.read_csv(path) for path in sorted(results_dir.glob("claims*.csv"))]
    return Results(
        tables={key: stored for key, stored in tables.items() if stored},
        anomalies=by_dataset("anomaly"),
        sweeps=by_dataset("noise_sweep"),
        atlases=by_dataset("atlas"),
        defense_points=by_dataset("defense_points"),
        claims=pd.concat(claims) if claims else pd.DataFrame(),
        other_readings={
            name: read_results(results_dir / name)
            for name in READINGS
            if (results_dir / name).is_dir()
        },
    )


def datasets_in(results_dir: Path) -> list[str]:
    """Return the names in `DATASETS`, and those of own data sets with tables."""
    found = [
        path.stem.removesuffix("_cells").split("_", 1)[1]
        for path in sorted(results_dir.glob("table[24]_*_cells.csv"))
    ]
    return list(dict.fromkeys([*DATASETS, *found]))


def read_stored(results_dir: Path, script: str, dataset: str) -> StoredTable | None:
    """Read what a script wrote on a data set; return None if it wrote nothing.

    Raises:
        ValueError: if a file is damaged.
    """
    # The CSV of a table has the paper's layout; its cells stand beside it.
    ending = "_cells.csv" if script in columns.TABLES else ".csv"
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
    """Return the command that makes the files of a script.

    Those of Table 2 on the paper's data sets have all columns.
    """
    whole = f"python reproduce/{script}.py --dataset={dataset}"
    if script == "table2" and dataset in constants.TABLE2:
        return f"{whole} --columns=all"
    return whole


def differences(results: Results) -> pd.DataFrame:
    """Return the mean absolute differences from the paper.

    Returns:
        For each table and data set one row over all numbers that the paper has (attack
        and column are `"all"`); one row for each of `LABEL_ALTERNATIVES` in the table,
        with its columns in the place of those that they read in another way (column
        `"all, true labels"`, for example); then one row per attack and column.
    """
    lines = []
    for (table, dataset), stored in results.tables.items():
        cells = beside_the_paper(stored.cells).dropna(subset="difference")
        if cells.empty:
            continue
        keys = pd.Series(
            list(zip(cells["attack"], cells["column"], strict=True)), cells.index
        )
        paper = columns.paper_cells(table)
        parts = [(("all", "all"), cells[keys.isin(paper)])]
        shown = set(paper)
        for alternative in LABEL_ALTERNATIVES:
            stand_ins = columns.stand_ins_of(alternative)
            read = {
                (attack, stand_ins.get((attack, column), column))
                for attack, column in paper
            }
            if keys.isin(read - paper).any():
                words = alternative.replace("_", " ")
                parts.append((("all", f"all, {words}"), cells[keys.isin(read)]))
                shown |= read
        either = cells[keys.isin(shown)]
        for (attack, column), part in either.groupby(["attack", "column"], sort=False):
            parts.append(((str(attack), str(column)), part))
        for (attack, column), part in parts:
            mean = part["difference"].abs().mean()
            # Rounded here, so that the page and the CSV round the same number.
            mean = float(f"{mean:.6g}")
            lines.append((dataset, table, attack, column, len(part), mean))
    names = ["dataset", "table", "attack", "column", "num_cells"]
    return pd.DataFrame(lines, columns=[*names, "mean_absolute_difference"])


def readings(results: Results, dataset: str) -> dict[str, Results]:
    """Return the results of a data set in each reading, by its name."""
    own = [
        reading_name(stored.record)
        for (_, name), stored in results.tables.items()
        if name == dataset
    ]
    others = {
        name: of_reading
        for name, of_reading in results.other_readings.items()
        if any(stored == dataset for _, stored in of_reading.tables)
    }
    return {**dict.fromkeys(own, results), **others}


def distances(results: Results, dataset: str) -> dict[str, float]:
    """Return mean absolute differences from the paper, by what they are over.

    A reading is chosen on the first, if at all; the second and the third are held out
    (docs/protocol.md, "How a reading is chosen"). NaN if there are no such cells.
    """
    parts = []
    for table in columns.TABLES:
        stored = results.tables.get((table, dataset))
        cells = pd.DataFrame() if stored is None else stored.cells
        if len(cells):
            keys = zip(cells["attack"], cells["column"], strict=True)
            paper = columns.paper_cells(table)
            cells = cells[[key in paper for key in keys]].assign(table=table)
        parts.append(cells)
    cells = pd.concat(parts)
    size = cells["difference"].abs()
    table2 = cells["table"] == "table2"
    chosen_on = table2 & (cells["method"] == rows.label("rand_ini"))
    return {
        "Table 2, Rand. Ini.": size[chosen_on].mean(),
        "Table 2, other rows": size[table2 & ~chosen_on].mean(),
        "Table 4": size[~table2].mean(),
        "both tables": size.mean(),
    }


def beside_the_paper(cells: pd.DataFrame) -> pd.DataFrame:
    """Set the paper's number beside the columns of `LABEL_ALTERNATIVES`, too.

    The paper has one number where we have one for each way to read the labels:
    docs/protocol.md, point 11.
    """
    alternative_to = {
        name: column.alternative_to
        for name, column in columns.BY_NAME.items()
        if column.alternative in LABEL_ALTERNATIVES
    }
    values = cells.set_index(["attack", "method", "column"])["paper"]
    read = cells["column"].replace(alternative_to)
    keys = zip(cells["attack"], cells["method"], read, strict=True)
    paper = np.array([values.get(key, np.nan) for key in keys])
    return cells.assign(paper=paper, difference=cells["accuracy"] - paper)
