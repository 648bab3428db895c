"""The captions of figures and tables, as LaTeX, from what is stored beside them."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from advens.datasets import display_name
from advens.strauss2017 import columns
from advens.strauss2017.atlas_choice import Judged, row_name
from advens.strauss2017.reporting.latex import escaped
from advens.strauss2017.reporting.manifest import Record, reading_name
from advens.strauss2017.reporting.results import StoredTable
from advens.strauss2017.reporting.table_layout import (
    MARKS_MEANING,
    heading,
    is_table4,
)
from advens.strauss2017.reporting.tables import lost_class_notes

if TYPE_CHECKING:
    from advens.strauss2017.examples import Examples

_PAPER = "Strauss et al. (2017)"


def table_caption(stored: StoredTable) -> str:
    """Return the caption of Table 2 or 4 of one data set."""
    cells, record = stored.cells, stored.record
    of_table4 = is_table4(cells)
    sentences = [
        f"Accuracies in the layout of Table {4 if of_table4 else 2} of {_PAPER}.",
        _run(stored),
    ]
    if of_table4:
        count = record["flags"]["num_singles"]
        singles = "one network" if count == 1 else f"the mean of {count} networks"
        sentences.append(f"Methods without an ensemble: {singles}.")
    if cells["paper"].notna().any():
        sentences.append("In brackets: the paper's values.")
    if of_table4:
        sentences.append(MARKS_MEANING)
    meanings = [
        f"{_in_words(name)}: {_in_words(columns.BY_NAME[name].meaning)}"
        for name in cells["column"].unique()
    ]
    sentences.append(f"Columns: {'; '.join(meanings)}.")
    return _latex([*sentences, *lost_class_notes(record.get("lost_classes", {}))])


def figure2_caption(tables: Mapping[str, StoredTable]) -> str:
    """Return the caption of Figure 2.

    Args:
        tables: Table 2 by data set.
    """
    stored = list(tables.values())
    sentences = [
        f"Table 2 of {_PAPER}, measured again: accuracies, with Wilson's 95 % "
        "intervals as whiskers."
    ]
    if any(table.cells["paper"].notna().any() for table in stored):
        sentences.append("Circles: the paper's values.")
    exact = set(columns.stand_ins_of("exact_gradients").values())
    if any(table.cells["column"].isin(exact).any() for table in stored):
        sentences.append("Crosses: by exact gradients, which do not round away.")
    return _latex([*sentences, *map(_run, stored)])


def anomaly_caption(stored: StoredTable) -> str:
    """Return the caption of the anomaly of one data set."""
    cells, record = stored.cells, stored.record
    first = cells.iloc[0]
    grad1 = cells.loc[cells["column"] == "grad1_ensemble", "num_members"].iloc[0]
    sentences = [
        f"Accuracy of {first['method']} after each step of BIM "
        f"(ε = {first['eps']:g}, α = {first['step_size']:g}) through the gradients of "
        f"{_PAPER} and through the ensemble's own, by the labels in the attack's loss. "
        "Box: images are clipped to [0, 1].",
        _facts(
            first["dataset"],
            first["num_images"],
            record,
            _members(record),
            f"Grad. 1 through {grad1} of them, mean",
            _seed(record),
            _reading(record),
        ),
    ]
    return _latex(sentences)


def atlas_caption(stored: StoredTable, readings: Sequence[Judged]) -> str:
    """Return the caption of the atlas of one data set.

    Args:
        stored: the atlas.
        readings: the rows of its figure, from top to bottom.
    """
    first = stored.cells.iloc[0]
    rows = [f"({i}) {row_name(reading)}" for i, reading in enumerate(readings, 1)]
    sentences = [
        f"Accuracy of Rand. Ini., ours minus that of {_PAPER}, under answers to the "
        "paper's open points. The rows, each with its mean absolute difference, the "
        f"nearest first: {'; '.join(rows)}.",
        _facts(
            first["dataset"],
            first["num_images"],
            stored.record,
            *_attacks(stored.record),
        ),
    ]
    return _latex(sentences)


def figure1_caption(examples: Sequence["Examples"], records: Sequence[Record]) -> str:
    """Return the caption of Figure 1.

    Args:
        examples: its images, by data set.
        records: the manifest of each.
    """
    sentences = [
        "Of each class the first test image that a single network, the first member "
        "of Rand. Ini., classifies correctly and that BIM then fools: before the "
        "attack and under it, with the class that is predicted then. Pixels outside "
        "[0, 1] are shown clipped."
    ]
    for of_dataset, record in zip(examples, records, strict=True):
        name, count = of_dataset.dataset.name, len(of_dataset.dataset.y_test)
        _, bim = _attacks(record)
        sentences.append(
            _facts(name, count, record, _seed(record), _reading(record), bim)
        )
        if of_dataset.shortfalls:
            sentences.append(f"Exceptions: {'; '.join(of_dataset.shortfalls)}.")
    return _latex(sentences)


def _run(stored: StoredTable) -> str:
    """Return the sentence about the run behind Table 2 or 4."""
    first, record = stored.cells.iloc[0], stored.record
    return _facts(
        first["dataset"],
        first["num_images"],
        record,
        _members(record),
        _seed(record),
        _reading(record),
        *_attacks(record),
    )


def _facts(dataset: str, num_images: int, record: Record, *further: str) -> str:
    differences = ", ".join(record["differs_from_the_paper"]) or "none"
    return (
        f"{display_name(dataset)}: {', '.join([f'{num_images} test images', *further])}"
        f"; settings that differ from the paper: {differences}."
    )


def _members(record: Record) -> str:
    return f"ensembles of {len(record['seeds']['members'])} members"


def _seed(record: Record) -> str:
    return f"run seed {record['seeds']['run']}"


def _reading(record: Record) -> str:
    return f"reading {reading_name(record)}"


def _attacks(record: Record) -> list[str]:
    """Return FGSM and BIM with their budgets."""
    attacks = []
    for attack in record["attacks"]:
        budget = f"ε = {attack['eps']:g}"
        if attack["num_steps"] > 1:
            budget += f", α = {attack['step_size']:g}, n = {attack['num_steps']}"
        if attack["box"]:
            budget += ", clipped to [0, 1]"
        attacks.append(f"{attack['name']} ({budget})")
    return attacks


def _in_words(text: str) -> str:
    """Return a text in which columns have the names that stand over them."""
    names = sorted(columns.BY_NAME, key=len, reverse=True)
    pattern = rf"\b({'|'.join(names)})\b"
    return re.sub(pattern, lambda name: " ".join(heading(name[0])), text)


def _latex(sentences: Sequence[str]) -> str:
    r"""Return a `\caption`, whole: as its argument, LaTeX takes no `\input`."""
    text = escaped(" ".join(sentences)).replace("Grad. ", "Grad.~")
    return f"\\caption{{{text}}}\n"
