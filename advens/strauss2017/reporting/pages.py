"""The generated parts of README.md and docs/results.md, as Markdown.

Everything is computed from `Results`. What is missing is named, together with the
command that makes it.
"""

from collections.abc import Mapping
from typing import Final

from advens.strauss2017 import columns, constants
from advens.strauss2017.claims import NOT_REPRODUCED, REPRODUCED
from advens.strauss2017.reporting.result_sections import (
    anomaly_section,
    atlas_section,
    claims_section,
    defense_points_section,
    noise_section,
    readings_section,
)
from advens.strauss2017.reporting.result_tables import (
    NOTHING,
    column_meanings,
    dataset_title,
    every_cell,
    number,
    number_beside,
    table_title,
    tables_beside_the_paper,
    times_section,
)
from advens.strauss2017.reporting.results import Results, command, distances, readings
from advens.strauss2017.reporting.tables import markdown_table

# The columns of Table 2 that README.md shows.
README_COLUMNS: Final = (
    "no_attack_ensemble",
    "grad1_single",
    "grad1_ensemble",
    "grad2_ensemble",
)
_NOTE: Final = (
    "The tables show accuracies, with the paper's in brackets. Each is an upper bound "
    "on robustness: a stronger attack may leave less.",
    "",
    "*Grad. 1* is the gradient of one member, *Grad. 2* the mean of the members' "
    "gradients, and *single* each member under its own gradient, averaged over the "
    "members. The labels in the attack's loss are those of the table's reading. "
    "*Repredicted* means that each member's label is predicted again at every step, "
    "which also corrects some images that were misclassified without attack; *true* "
    "that the given labels are used. The paper has one number for all labels; it "
    "stands beside each. All these columns follow the loss as Keras computes it, whose "
    "gradient is lost to rounding where a network is certain. *Exact* and *ensemble "
    "gradient* follow gradients that keep it.",
    "",
    "The mean absolute differences are over all numbers that the paper has: first in "
    "the reading, then with other labels under BIM through Grad. 2 (in Table 4, all "
    "BIM).",
)


def fill_page(page: str, parts: Mapping[str, str]) -> str:
    """Replace what stands between the markers of each part on a page.

    The markers are `<!-- <name>: begin -->` and `<!-- <name>: end -->`.

    Args:
        page: its text.
        parts: the new text between the markers, by name.

    Raises:
        ValueError: if a marker is missing.
    """
    for name, part in parts.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        _, marker, after = rest.partition(end)
        if not marker:
            raise ValueError(
                f"A page must have {begin} and, below it, {end} around its generated "
                f"part. Received: the page that begins with {page[:40]!r}"
            )
        body = f"\n{part}\n\n" if part else ""
        page = f"{before}{begin}\n{body}{end}{after}"
    return page


def readme_results(results: Results) -> str:
    """Return one small table beside the paper's, and what the results amount to."""
    legends = [_readme_header(name) for name in README_COLUMNS]
    lines = []
    notes = []
    for dataset in constants.TABLE2:
        stored = results.tables.get(("table2", dataset))
        if stored is None:
            made_by = command("table2", dataset)
            notes.append(f"{dataset_title(dataset)} is still missing (`{made_by}`).")
            continue
        if stored.deviations:
            notes.append(
                f"The run on {dataset_title(dataset)} is reduced: it differs from the "
                f"paper in {', '.join(stored.deviations)}."
            )
        bim = stored.cells[stored.cells["attack"] == "BIM"]
        for method, part in bim.groupby("method", sort=False):
            shown = {
                row["column"]: number_beside(row["accuracy"], row["paper"])
                for row in part.to_dict("records")
            }
            accuracies = [shown.get(name, NOTHING) for name in README_COLUMNS]
            lines.append([dataset_title(dataset), method, *accuracies])
    page = [
        *markdown_table(["data set", "method", *legends], lines),
        "",
        " ".join(["Accuracies, with the paper's in brackets.", *notes]),
    ]
    findings = [_mean_difference(results), _claims(results), _exact_gradients(results)]
    kept = [f"- {finding}" for finding in findings if finding]
    if kept:
        page += ["", *kept]
    return "\n".join(page)


def _readme_header(name: str) -> str:
    column = columns.BY_NAME[name]
    return f"BIM, {column.legend}" if column.gradient else str(column.legend)


def _mean_difference(results: Results) -> str:
    """Return how far our numbers are from the paper's."""
    parts = []
    for dataset in constants.TABLE2:
        means = {
            name: distances(of_reading, dataset)["both tables"]
            for name, of_reading in readings(results, dataset).items()
        }
        words = [f"{number(mean)} (reading *{name}*)" for name, mean in means.items()]
        if words:
            parts.append(f"{' or '.join(words)} on {dataset_title(dataset)}")
    if not parts:
        return ""
    return (
        "Mean absolute difference from the paper, over all numbers of its Tables 2 and "
        f"4: {', '.join(parts)}."
    )


def _claims(results: Results) -> str:
    """Return how many of the paper's claims are reproduced."""
    if results.claims.empty:
        return ""
    judged = results.claims[results.claims["dataset"].isin(constants.TABLE2)]
    reproduced = (judged["verdict"] == REPRODUCED).sum()
    failed = (judged["verdict"] == NOT_REPRODUCED).sum()
    undetermined = len(judged) - reproduced - failed
    return (
        f"Verdicts on the paper's claims, {len(judged)} in all on these data sets: "
        f"{reproduced} reproduced, {failed} not reproduced, {undetermined} "
        "undetermined."
    )


def _exact_gradients(results: Results) -> str:
    """Return what exact gradients leave of single networks under BIM."""
    read = columns.stand_ins_of("exact_gradients")["BIM", "grad1_single"]
    usual, exact = [], []
    for dataset in constants.TABLE2:
        stored = results.tables.get(("table2", dataset))
        if stored is None or read not in set(stored.cells["column"]):
            continue
        bim = stored.cells[stored.cells["attack"] == "BIM"]
        means = bim.groupby("column")["accuracy"].mean()
        usual.append(f"{number(means['grad1_single'])} on {dataset_title(dataset)}")
        exact.append(f"{number(means[read])}")
    if not exact:
        return ""
    return (
        "Averaged over the methods, BIM leaves single networks an accuracy of "
        f"{' and '.join(usual)}. With exact gradients, which lose nothing to rounding, "
        f"it leaves {' and '.join(exact)}."
    )


def details(results: Results) -> str:
    """Return all results: tables, times, claims, anomaly, noise, atlas, every cell."""
    lines = [*_NOTE, "", "The columns:", "", *column_meanings(), ""]
    lines += tables_beside_the_paper(results)
    lines += ["### The readings side by side", "", *readings_section(results), ""]
    for name, of_reading in results.other_readings.items():
        heading = f" in the reading *{name}*"
        lines += tables_beside_the_paper(of_reading, heading=heading)
    lines += ["### Times and machines", "", *times_section(results), ""]
    lines += ["### The claims", "", *claims_section(results.claims), ""]
    for dataset, stored in results.anomalies.items():
        title = f"### The anomaly on {dataset_title(dataset)}"
        lines += [title, "", *anomaly_section(stored), ""]
    missing = [name for name in constants.TABLE2 if name not in results.anomalies]
    if missing:
        commands = ", ".join(f"`{command('anomaly', name)}`" for name in missing)
        lines += [f"The anomaly, step by step, is still missing: {commands}.", ""]
    for dataset, stored in results.sweeps.items():
        title = f"### The choice of noise on {dataset_title(dataset)}"
        lines += [title, "", *noise_section(stored), ""]
    for dataset, stored in results.atlases.items():
        title = f"### The atlas of readings on {dataset_title(dataset)}"
        lines += [title, "", *atlas_section(stored), ""]
    for dataset, stored in results.defense_points.items():
        title = f"### Table 4's open points on {dataset_title(dataset)}"
        lines += [title, "", *defense_points_section(stored), ""]
    for (table, dataset), stored in results.tables.items():
        title = f"### {table_title(table)} on {dataset_title(dataset)}, cell by cell"
        lines += [title, "", stored.scale, "", *every_cell(stored.cells), ""]
    return "\n".join(lines).rstrip("\n")
