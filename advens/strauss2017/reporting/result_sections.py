"""The claims, the anomaly and the choice of noise as Markdown."""

import pandas as pd

from advens.strauss2017 import columns, rows
from advens.strauss2017.claims import NOT_REPRODUCED, VERDICTS
from advens.strauss2017.reporting.result_tables import (
    NOTHING,
    dataset_title,
    number,
)
from advens.strauss2017.reporting.results import DATASETS, StoredTable
from advens.strauss2017.reporting.tables import markdown_table


def claims_section(claims: pd.DataFrame) -> list[str]:
    """Return the lines that count the verdicts and name the claims that failed.

    Args:
        claims: as of `claims.judge_readings`; empty if there are none.
    """
    if claims.empty:
        return ["Still missing: `python reproduce/claims.py`."]
    counts = pd.crosstab(claims["dataset"], claims["verdict"])
    counts = counts.reindex(columns=list(VERDICTS), fill_value=0)
    names = [name for name in DATASETS if name in counts.index]
    lines = markdown_table(
        ["data set", *VERDICTS, "total"],
        [
            [dataset_title(name), *counts.loc[name], counts.loc[name].sum()]
            for name in names
        ],
    )
    failed = claims[claims["verdict"] == NOT_REPRODUCED]
    for name in names:
        keys = [f"`{key}`" for key in failed.loc[failed["dataset"] == name, "key"]]
        if keys:
            lines += [
                "",
                f"Not reproduced on {dataset_title(name)}: {', '.join(keys)}.",
            ]
    for reading in columns.READINGS:
        again = claims[f"verdict_{reading}"]
        changed = claims[again.notna() & (again != claims["verdict"])]
        shown = [
            f"`{row['key']}` on {dataset_title(row['dataset'])} ({row[again.name]})"
            for row in changed.to_dict("records")
        ]
        words = reading.replace("_", " ")
        lines += ["", f"Another verdict with {words}: {', '.join(shown) or 'none'}."]
    return lines


def anomaly_section(stored: StoredTable) -> list[str]:
    """Return the accuracies after the paper's number of steps, and where Grad. 2 fails.

    The last row has the paper's own numbers.

    Args:
        stored: what the anomaly's script wrote on a data set.
    """
    points = stored.cells
    names = list(points["column"].unique())
    dataset, method = points[["dataset", "method"]].iloc[0]
    (num_steps,) = (
        attack["num_steps"]
        for attack in stored.record["attacks"]
        if attack["name"] == "BIM"
    )
    lines = []
    for (labels, box), part in points.groupby(["labels", "box"], sort=False):
        by_step = part.pivot(index="num_steps", columns="column", values="accuracy")
        weaker = by_step.index[by_step["grad2_ensemble"] > by_step["grad1_ensemble"]]
        lines.append(
            [
                labels,
                "yes" if box else "no",
                *map(number, by_step.loc[num_steps, names]),
                ", ".join(map(str, weaker)) or "none",
            ]
        )
    for row in rows.TABLE2_ROWS:
        paper = [columns.paper_value(dataset, "BIM", row, name) for name in names]
        if rows.label(row) == method and any(paper):
            shown = [NOTHING if value is None else number(value) for value in paper]
            lines.append(["the paper", NOTHING, *shown, NOTHING])
    header = ["labels", "box", *(name.replace("_", " ") for name in names)]
    header.append("steps at which Grad. 2 is weaker than Grad. 1")
    return [
        f"Accuracy of {method} after {num_steps} steps of BIM. {stored.scale}",
        "",
        *markdown_table(header, lines),
    ]


def noise_section(stored: StoredTable) -> list[str]:
    """Return the accuracies without attack by noise, the closest to the paper marked.

    Args:
        stored: what the noise sweep's script wrote on a data set.
    """
    lines = []
    for row in stored.cells.to_dict("records"):
        noise_std = number(row["noise_std"])
        lines.append(
            [
                f"{noise_std} (closest)" if row["closest"] else noise_std,
                number(row["accuracy"]),
                f"{number(row['wilson_low'])} to {number(row['wilson_high'])}",
                number(row["paper"]),
                number(row["difference"], "+"),
            ]
        )
    header = ["noise_std", "accuracy", "Wilson 95 % interval", "paper", "difference"]
    count = stored.cells["num_members"].iloc[0]
    networks = "one network" if count == 1 else f"{count} networks, on average,"
    return [
        f"Accuracy without attack of {networks} trained with each noise_std. "
        f"{stored.scale}",
        "",
        *markdown_table(header, lines),
    ]
