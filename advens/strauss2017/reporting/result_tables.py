"""Tables 2 and 4 as Markdown: beside the paper's, cell by cell, and their times."""

from datetime import timedelta
from typing import Final

import numpy as np
import pandas as pd

from advens import datasets
from advens.strauss2017 import columns, constants, rows
from advens.strauss2017.reporting.manifest import Record
from advens.strauss2017.reporting.results import (
    DATASETS,
    ROWS,
    Results,
    StoredTable,
    beside_the_paper,
    command,
    differences,
)
from advens.strauss2017.reporting.tables import lost_class_notes, markdown_table

NOTHING: Final = "–"


def dataset_title(dataset: str) -> str:
    """Return what pages call a data set."""
    title = datasets.display_name(dataset)
    return title if dataset in constants.TABLE2 else f"{title} (not in the paper)"


def table_title(table: str) -> str:
    """Return what pages call a table: `"Table 2"` for `"table2"`."""
    return f"Table {table.removeprefix('table')}"


def number(value: float, sign: str = "") -> str:
    """Return a number with four decimals and without a leading zero; – for NaN.

    Args:
        value: the number.
        sign: `"+"` to show the sign of positive numbers, too.
    """
    return NOTHING if np.isnan(value) else f"{value:{sign}.4f}".replace("0.", ".", 1)


def number_beside(value: float, paper: float) -> str:
    """Return a number, followed by the paper's in brackets if the paper has one."""
    return number(value) if np.isnan(paper) else f"{number(value)} ({number(paper)})"


def column_meanings() -> list[str]:
    """Return the lines of a list that explains each column."""
    return [
        f"- {table_title(table)}, *{column.name.replace('_', ' ')}*: {column.meaning}."
        for table, entries in columns.TABLES.items()
        for column in entries
    ]


def tables_beside_the_paper(results: Results, *, heading: str = "") -> list[str]:
    """Return the lines of Tables 2 and 4 beside the paper's, per data set.

    Without a heading the paper's data sets are always there, with the commands that
    make what is missing; others are only there if there is a table of them.

    Args:
        results: the results.
        heading: what stands behind each data set's name, for tables of which nothing
            is missing.
    """
    lines = []
    stored = {dataset for _, dataset in results.tables}
    means = differences(results)
    for dataset in DATASETS:
        if dataset not in stored and (heading or dataset not in constants.TABLE2):
            continue
        lines += [f"### {dataset_title(dataset)}{heading}", ""]
        for table in ROWS:
            if heading and (table, dataset) not in results.tables:
                continue
            chosen = (means["table"] == table) & (means["dataset"] == dataset)
            lines += _beside_the_paper(results, table, dataset, means[chosen])
    return lines


def _beside_the_paper(
    results: Results, table: str, dataset: str, means: pd.DataFrame
) -> list[str]:
    lines = []
    stored = results.tables.get((table, dataset))
    missing = [rows.label(row) for row in ROWS[table]]
    if stored:
        notes = lost_class_notes(stored.record.get("lost_classes", {}))
        lines += [" ".join([f"**{table_title(table)}.** {stored.scale}", *notes]), ""]
        by_column = means.set_index(["attack", "column"])["mean_absolute_difference"]
        lines += [*_paper_layout(stored, table, by_column), ""]
        totals = means[means["attack"] == "all"]
        if len(totals):
            # The columns are "all" and, for example, "all, true labels".
            words = [
                number(row["mean_absolute_difference"])
                + row["column"].removeprefix("all").replace(", ", " with ")
                for row in totals.to_dict("records")
            ]
            lines += [
                f"Mean absolute difference over {totals['num_cells'].iloc[0]} cells: "
                f"{'; '.join(words)}.",
                "",
            ]
        present = set(stored.cells["method"])
        missing = [label for label in missing if label not in present]
    if missing:
        lines += [
            f"Still missing from {table_title(table)}: {', '.join(missing)} "
            f"(`{command(table, dataset)}`).",
            "",
        ]
    return lines


def _paper_layout(
    stored: StoredTable, table: str, means: "pd.Series[float]"
) -> list[str]:
    """Return a table as the paper prints it, and the mean differences below.

    Args:
        stored: the table.
        table: its name.
        means: mean absolute differences, by attack and column.
    """
    cells = beside_the_paper(stored.cells)
    names = [
        column.name
        for column in columns.TABLES[table]
        if column.name in set(cells["column"])
    ]
    header = ["method", *(name.replace("_", " ") for name in names)]
    panels = [("", cells)]
    # In Table 4 the columns have attacks, in Table 2 the rows.
    rows_have_attacks = table == "table2"
    if rows_have_attacks:
        header = ["attack", *header]
        panels = [(str(key), part) for key, part in cells.groupby("attack", sort=False)]
    lines = []
    for attack, panel in panels:
        lead = [attack] if rows_have_attacks else []
        for method, part in panel.groupby("method", sort=False):
            shown = {
                row["column"]: number_beside(row["accuracy"], row["paper"])
                for row in part.to_dict("records")
            }
            accuracies = [shown.get(name, NOTHING) for name in names]
            lines.append([*lead, str(method), *accuracies])
        attacks = dict(zip(panel["column"], panel["attack"], strict=True))
        below = [means.get((attacks.get(name), name), np.nan) for name in names]
        if not np.isnan(below).all():
            lines.append([*lead, "*mean abs. difference*", *map(number, below)])
    return markdown_table(header, lines)


def every_cell(cells: pd.DataFrame) -> list[str]:
    """Return the lines of a table with one row per cell.

    Args:
        cells: as of `tables.cell_frame`.
    """
    header = [
        "attack",
        "method",
        "column",
        "accuracy",
        "Wilson 95 % interval",
        "lowest to highest member",
        "gradient exactly zero",
        "and classified correctly",
        "images",
        "paper",
        "difference",
    ]
    lines = []
    for row in cells.to_dict("records"):
        span = NOTHING
        if row["num_members"] > 1:
            span = f"{number(row['lowest_member'])} to {number(row['highest_member'])}"
        lines.append(
            [
                row["attack"],
                row["method"],
                row["column"].replace("_", " "),
                number(row["accuracy"]),
                f"{number(row['wilson_low'])} to {number(row['wilson_high'])}",
                span,
                number(row["zero_gradient_share"]),
                number(row["right_at_zero_gradient"]),
                row["num_images"],
                number(row["paper"]),
                number(row["difference"], "+"),
            ]
        )
    return markdown_table(header, lines)


def times_section(results: Results) -> list[str]:
    """Return the lines that say how long each row took, and on which machine."""
    header = [
        "data set",
        "table",
        "row",
        "training",
        "attacks",
        "restarts",
        "lost classes",
        "machine",
    ]
    lines = []
    remarks = []
    for (table, dataset), stored in results.tables.items():
        seconds = stored.record["seconds_per_stage"]
        # A stage is called `train <row>` or `attack <row>`.
        for row in dict.fromkeys(stage.split(" ", 1)[1] for stage in seconds):
            lines.append(
                [
                    dataset_title(dataset),
                    table_title(table),
                    rows.label(row),
                    _duration(seconds.get(f"train {row}", 0)),
                    _duration(seconds.get(f"attack {row}", 0)),
                    _total(stored.record, "restarts", row),
                    _total(stored.record, "lost_classes", row),
                    _machine(stored.record["hardware"]),
                ]
            )
        remark = stored.record.get("remark")
        if remark:
            title = f"{dataset_title(dataset)}, {table_title(table)}"
            remarks += ["", f"{title}: {remark}"]
    return [
        "Times are in hours, minutes and seconds; a dash means that the run found the "
        "work done in the store. Restarts and lost classes are totals over all members "
        "of a row (docs/protocol.md, point 26); a dash means that they were not "
        "counted.",
        "",
        *markdown_table(header, lines),
        *remarks,
    ]


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if round(seconds) else NOTHING


def _total(record: Record, entry: str, row: str) -> str:
    """Return the total over the members of a row; – if it was not counted."""
    counts = record.get(entry, {}).get(row)
    return NOTHING if counts is None or None in counts else str(sum(counts))


def _machine(hardware: Record) -> str:
    cores = "1 core" if hardware["cores"] == 1 else f"{hardware['cores']} cores"
    return f"{hardware['processor']}, {cores}, {' '.join(hardware['devices'])}"
