"""The results as Markdown, for README.md and docs/results.md.

All of it is computed from `report.Results`; what is missing is named, with the command
that makes it.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

import numpy as np
import pandas as pd

from advens import paper, recipes, report
from advens.claims import MISSING, NOT_REPRODUCED, OPEN, READINGS, REPRODUCED
from advens.tables import (
    TABLE2_COLUMNS,
    TABLE4_COLUMNS,
    lost_class_notes,
    markdown,
)

_COLUMNS: Final = {
    "table2": tuple(TABLE2_COLUMNS),
    "table4": tuple(TABLE4_COLUMNS),
}
_VERDICTS: Final = (REPRODUCED, NOT_REPRODUCED, OPEN, MISSING)
_NOTE: Final = (
    "Accuracies; in brackets the paper's. *Single*: each member under its own "
    "gradient, on average. *Grad. 1*: the gradient of one member; *Grad. 2*: the mean "
    "of the members'. *Repredicted*: each member's label is predicted again at every "
    "step, which also repairs some images that were wrong without attack; the paper "
    "has one number for both readings of the labels, which stands beside each. These "
    "follow the loss as Keras computes it, whose gradient rounds away where a network "
    "is certain; *exact* and *ensemble gradient* do not. All are upper bounds of "
    "robustness: a stronger attack may leave less. Mean absolute differences are over "
    "every number that the paper has, our labels being true; the second takes the "
    "labels of BIM through Grad. 2 (in Table 4, of all BIM) predicted again, a reading "
    "that was chosen because it lies nearer to the paper on average."
)


def fill(page: str, parts: Mapping[str, str]) -> str:
    """Replace what stands on a page between the markers of each part.

    They are `<!-- <name>: begin -->` and `<!-- <name>: end -->`.

    Raises:
        ValueError: if one is missing.
    """
    for name, part in parts.items():
        begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(
                f"A page must have {begin} and, below it, {end} around what is "
                f"generated. Received: the page that begins with {page[:40]!r}"
            )
        body = f"\n{part}\n\n" if part else ""
        page = f"{before}{begin}\n{body}{end}{after}"
    return page


def summary(results: report.Results) -> str:
    """Return each table beside the paper's, and how long it took."""
    lines = [_NOTE]
    stored = {dataset for _, dataset in results.tables}
    for dataset, name in report.NAMES.items():
        if dataset in stored or dataset in paper.TABLE2:
            lines += ["", f"### {name}"]
            for table in report.ROWS:
                lines += ["", *_beside_the_paper(results, table, dataset)]
    return "\n".join([*lines, "", "### How long it took", "", *_times(results)])


def details(results: report.Results) -> str:
    """Return what `summary` has, then claims, anomaly, noise and each cell."""
    lines = [summary(results), "", "### The claims", "", *_verdicts(results.claims)]
    for dataset, stored in results.anomalies.items():
        title = f"### The anomaly on {report.NAMES[dataset]}"
        lines += ["", title, "", *_anomaly(stored)]
    if absent := [name for name in paper.TABLE2 if name not in results.anomalies]:
        commands = ", ".join(f"`{report.command('anomaly', name)}`" for name in absent)
        lines += ["", f"The anomaly, step by step, is not there yet: {commands}."]
    for dataset, stored in results.sweeps.items():
        title = f"### The choice of noise on {report.NAMES[dataset]}"
        lines += ["", title, "", *_sweep(stored)]
    for (table, dataset), stored in results.tables.items():
        title = f"### {_title(table)} on {report.NAMES[dataset]}, cell by cell"
        lines += ["", title, "", stored.scale, "", *_each(stored.cells)]
    return "\n".join(lines)


def _title(table: str) -> str:
    return f"Table {table[-1]}"


def _number(value: float, sign: str = "") -> str:
    return "–" if np.isnan(value) else f"{value:{sign}.4f}".replace("0.", ".", 1)


def _beside_the_paper(
    results: report.Results, table: str, dataset: str
) -> Iterator[str]:
    methods = [recipes.label(row) for row in report.ROWS[table]]
    stored = results.tables.get((table, dataset))
    if stored:
        lost = lost_class_notes(stored.record.get("lost_classes", {}))
        yield " ".join([f"**{_title(table)}.** {stored.scale}", *lost])
        yield ""
        frame = report.differences(results)
        frame = frame[(frame["table"] == table) & (frame["dataset"] == dataset)]
        means = frame.set_index(["attack", "column"])
        yield from _wide(stored.cells, table, means["mean_absolute_difference"])
        totals = frame[frame["attack"] == "all"]
        if len(totals):
            true, repredicted = map(_number, totals["mean_absolute_difference"])
            count = totals["num_cells"].iloc[0]
            yield ""
            yield (
                f"Mean absolute difference, {count} cells: {true}; with repredicted "
                f"labels, {repredicted}."
            )
        methods = [name for name in methods if name not in set(stored.cells["method"])]
    if methods:
        yield from [""] * bool(stored)
        yield (
            f"Not there yet of {_title(table)}: {', '.join(methods)} "
            f"(`{report.command(table, dataset)}`)."
        )


def _wide(cells: pd.DataFrame, table: str, means: "pd.Series[float]") -> Iterator[str]:
    cells = report.compared(cells)
    columns = [name for name in _COLUMNS[table] if name in set(cells["column"])]
    # Only in Table 2 does the attack name rows.
    named = table == "table2"
    rows = []
    for panel, group in cells.groupby("attack" if named else "dataset", sort=False):
        lead = [str(panel)] if named else []
        for method, part in group.groupby("method", sort=False):
            shown = {
                row["column"]: _number(row["accuracy"])
                + (f" ({_number(row['paper'])})" if row["paper"] > 0 else "")
                for row in part.to_dict("records")
            }
            rows.append([*lead, str(method), *(shown.get(c, "–") for c in columns)])
        attacks = dict(zip(group["column"], group["attack"], strict=True))
        found = [means.get((attacks.get(c), c), np.nan) for c in columns]
        if not np.isnan(found).all():
            rows.append([*lead, "*mean abs. difference*", *map(_number, found)])
    header = [name.replace("_", " ") for name in columns]
    yield from markdown([*(["attack"] if named else []), "method", *header], rows)


def _each(cells: pd.DataFrame) -> list[str]:
    header = (
        *("attack", "method", "column", "accuracy", "Wilson 95 % interval"),
        *("lowest to highest member", "exactly zero gradients", "and right"),
        *("images", "paper", "difference"),
    )
    rows = []
    for row in cells.to_dict("records"):
        several = row["num_members"] > 1
        low, high = row["lowest_member"], row["highest_member"]
        rows.append(
            [
                *(row["attack"], row["method"], row["column"].replace("_", " ")),
                _number(row["accuracy"]),
                f"{_number(row['wilson_low'])} to {_number(row['wilson_high'])}",
                f"{_number(low)} to {_number(high)}" if several else "–",
                _number(row["zero_gradient_share"]),
                *(_number(row["right_at_zero_gradient"]), row["num_images"]),
                *(_number(row["paper"]), _number(row["difference"], "+")),
            ]
        )
    return markdown(header, rows)


def _times(results: report.Results) -> list[str]:
    header = (
        *("data set", "table", "row", "training", "attacks"),
        *("restarts", "lost classes", "machine"),
    )
    rows = []
    for (table, dataset), stored in results.tables.items():
        seconds = stored.record["seconds_per_stage"]
        machine = stored.record["hardware"]
        for row in dict.fromkeys(stage.split(" ", 1)[1] for stage in seconds):
            spans = [seconds.get(f"{work} {row}", 0) for work in ("train", "attack")]
            counts = [
                stored.record.get(name, {}).get(row)
                for name in ("restarts", "lost_classes")
            ]
            rows.append(
                [
                    *(report.NAMES[dataset], _title(table), recipes.label(row)),
                    *(timedelta(seconds=round(s)) if round(s) else "–" for s in spans),
                    *("–" if found is None else sum(found) for found in counts),
                    f"{machine['processor']}, {machine['cores']} "
                    f"core{'s' * (machine['cores'] > 1)}, "
                    f"{' '.join(machine['devices'])}",
                ]
            )
    note = (
        "Hours, minutes and seconds; – is what the run of another table had left in "
        "the store. Restarts and lost classes, of all members together: "
        "docs/protocol.md, point 26; where – stands, they were not counted."
    )
    lines = [note, "", *markdown(header, rows)]
    for (table, dataset), stored in results.tables.items():
        if remark := stored.record.get("remark"):
            lines += ["", f"{report.NAMES[dataset]}, {_title(table)}: {remark}"]
    return lines


def _verdicts(claims: pd.DataFrame) -> list[str]:
    if claims.empty:
        return ["Not there yet: `python reproduce/claims.py`."]
    counts = pd.crosstab(claims["dataset"], claims["verdict"])
    counts = counts.reindex(columns=list(_VERDICTS), fill_value=0)
    rows = [
        [report.NAMES[name], *counts.loc[name], counts.loc[name].sum()]
        for name in report.NAMES
        if name in counts.index
    ]
    lines = markdown(["data set", *_VERDICTS, "in all"], rows)
    for name, part in claims[claims["verdict"] == NOT_REPRODUCED].groupby("dataset"):
        keys = ", ".join(f"`{key}`" for key in part["key"])
        lines += ["", f"Not reproduced on {report.NAMES[str(name)]}: {keys}."]
    for name in READINGS:
        again = claims[f"verdict_{name}"]
        changed = claims[again.notna() & (again != claims["verdict"])]
        found = [
            f"`{row['key']}` on {report.NAMES[row['dataset']]} ({row[again.name]})"
            for row in changed.to_dict("records")
        ]
        reading = name.replace("_", " ")
        lines += ["", f"Another verdict with {reading}: {', '.join(found) or 'none'}."]
    return lines


def _anomaly(stored: report.Stored) -> list[str]:
    """Show accuracies after the paper's number of steps, and where Grad. 2 is weaker.

    The paper's own values are the last row.
    """
    cells = stored.cells
    columns = list(cells["column"].unique())
    dataset, method = cells[["dataset", "method"]].iloc[0]
    (num_steps,) = (
        attack["num_steps"]
        for attack in stored.record["attacks"]
        if attack["name"] == "BIM"
    )
    rows = []
    for (labels, box), part in cells.groupby(["labels", "box"], sort=False):
        walk = part.pivot(index="num_steps", columns="column", values="accuracy")
        weaker = walk.index[walk["grad2_ensemble"] > walk["grad1_ensemble"]]
        rows.append(
            [
                *(labels, "yes" if box else "no"),
                *map(_number, walk.loc[num_steps, columns]),
                ", ".join(map(str, weaker)) or "none",
            ]
        )
    for (attack, row), values in paper.TABLE2.get(dataset, {}).items():
        if attack == "BIM" and recipes.label(row) == method:
            theirs = dict(zip(paper.TABLE2_COLUMNS, values, strict=True))
            shown = [_number(theirs.get(column, np.nan)) for column in columns]
            rows.append(["the paper", "–", *shown, "–"])
    names = [name.replace("_", " ") for name in columns]
    header = ["labels", "box", *names, "Grad. 2 weaker than Grad. 1 at n ="]
    line = f"{method}, BIM, accuracy after n = {num_steps} steps. {stored.scale}"
    return [line, "", *markdown(header, rows)]


def _sweep(stored: report.Stored) -> list[str]:
    """Show accuracies without attack by noise, and which is closest to the paper's."""
    header = ("noise_std", "accuracy", "Wilson 95 % interval", "paper", "difference")
    rows = [
        [
            _number(row["noise_std"]) + " (closest)" * row["closest"],
            _number(row["accuracy"]),
            f"{_number(row['wilson_low'])} to {_number(row['wilson_high'])}",
            *(_number(row["paper"]), _number(row["difference"], "+")),
        ]
        for row in stored.cells.to_dict("records")
    ]
    count = stored.cells["num_members"].iloc[0]
    line = (
        "Single networks trained on noise, without attack, the mean of "
        f"{count} for each noise_std. {stored.scale}"
    )
    return [line, "", *markdown(header, rows)]
