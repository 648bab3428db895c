"""The claims, the anomaly and the choice of noise as Markdown."""

import pandas as pd

from advens.strauss2017 import atlas_choice, columns, constants, rows
from advens.strauss2017.atlas_choice import reading_name
from advens.strauss2017.claims import NOT_REPRODUCED, VERDICTS
from advens.strauss2017.readings import LABELS
from advens.strauss2017.reporting.atlas_report import verdict
from advens.strauss2017.reporting.points_report import answer_means
from advens.strauss2017.reporting.result_tables import (
    NOTHING,
    dataset_title,
    number,
)
from advens.strauss2017.reporting.results import (
    DATASETS,
    Results,
    StoredTable,
    distances,
    readings,
)
from advens.strauss2017.reporting.tables import markdown_table


def claims_section(claims: pd.DataFrame) -> list[str]:
    """Return the lines that count the verdicts and name the claims that failed.

    Args:
        claims: as of `claims.judge_alternatives`; empty if there are none.
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
    for alternative in columns.ALTERNATIVES:
        if f"verdict_{alternative}" not in claims:
            continue
        again = claims[f"verdict_{alternative}"]
        changed = claims[again.notna() & (again != claims["verdict"])]
        shown = [
            f"`{row['key']}` on {dataset_title(row['dataset'])} ({row[again.name]})"
            for row in changed.to_dict("records")
        ]
        words = alternative.replace("_", " ")
        lines += ["", f"Another verdict with {words}: {', '.join(shown) or 'none'}."]
    return lines


def readings_section(results: Results) -> list[str]:
    """Return the distance of each reading from the paper, with what was held out."""
    lines = []
    for dataset in constants.TABLE2:
        for name, of_reading in readings(results, dataset).items():
            values = distances(of_reading, dataset)
            lines.append([dataset_title(dataset), name, *map(number, values.values())])
            header = ["data set", "reading", *values]
    if not lines:
        return ["Still missing: the tables."]
    return [
        "Mean absolute differences from the paper. A reading is chosen on Rand. Ini. "
        'of Table 2 at most; all else is held out ([protocol.md](protocol.md), "How a '
        'reading is chosen").',
        "",
        *markdown_table(header, lines),
    ]


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


def atlas_section(stored: StoredTable) -> list[str]:
    """Return the distance of each reading from the paper, the nearest first.

    Args:
        stored: what the atlas's script wrote on a data set.
    """
    exact = {
        tuple(reading[name] for name in atlas_choice.DRAW): reading["distance"]
        for reading in atlas_choice.distances(stored.cells, loss="exact")
    }
    lines = []
    readings = atlas_choice.distances(stored.cells)
    for reading in readings:
        key = tuple(reading[name] for name in atlas_choice.DRAW)
        lines.append(
            [
                reading_name(reading),
                reading["num_members"],
                reading["seed"],
                number(reading["distance"]),
                number(exact[key]),
                *(reading[name] for name in LABELS),
                reading["restarts"],
                reading["lost_classes"],
            ]
        )
    header = [
        *("reading", "members", "run seed", "distance", "distance, exact gradients"),
        *("FGSM, Grad. 1", "BIM, Grad. 1", "FGSM, Grad. 2", "BIM, Grad. 2"),
        *("restarts", "lost classes"),
    ]
    num_images = stored.cells["num_images"].iloc[0]
    return [
        "The distance of a reading is the mean absolute difference from the paper over "
        f"the eight numbers of Rand. Ini. in Table 2, on {num_images} test images. The "
        "labels of each attack and gradient are those nearest to the paper "
        '([protocol.md](protocol.md), "How a reading is chosen").',
        "",
        *markdown_table(header, lines),
        "",
        verdict(readings),
    ]


def defense_points_section(stored: StoredTable) -> list[str]:
    """Return the accuracy of Table 4's cells under each answer to its open points.

    Args:
        stored: what the script of the open points wrote on a data set.
    """
    means = answer_means(stored.cells)
    shown = means[means["column"].isin(["no_attack", "fgsm", "bim"])]
    lines = [
        [value if isinstance(value, str) else number(value) for value in row]
        for row in shown.itertuples(index=False)
    ]
    header = [str(name).replace("_", " ") for name in means.columns]
    return [
        "Accuracy under each answer, averaged over the answers to the other points; a "
        f"dash where a point does not matter. Nothing is chosen on it. {stored.scale}",
        "",
        *markdown_table(header, lines),
    ]
