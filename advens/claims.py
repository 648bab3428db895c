"""Which claims of the paper the outcomes of Tables 2 and 4 bear out.

A claim (`paper.CLAIMS`) rests on comparisons of accuracies on the same test images. A
comparison holds, is reversed, or is open where its difference may be chance: two-sided
p-values (`statistics.paired_test`, `level_test`), adjusted by Holm's method over all
comparisons of a data set. See `verdict` for what follows for the claim.
"""

import dataclasses
import itertools
import string
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from advens import paper
from advens.statistics import holm, level_test, paired_test
from advens.tables import EXACT, REPREDICTED, Cell

ALPHA: Final = 0.05

REPRODUCED: Final = "reproduced"
NOT_REPRODUCED: Final = "not reproduced"
OPEN: Final = "undetermined at this scale"
MISSING: Final = "undetermined"

# Other readings of the attacked columns: which column stands in for which.
READINGS: Final = {
    "repredicted_labels": {("BIM", c): other for c, other in REPREDICTED.items()},
    "exact_gradients": {
        (attack, column): other
        for attack in paper.CLAIM_GROUPS["attack"]
        for column, other in EXACT.items()
    },
}

Outcome = Literal["held", "reversed", "open", "missing"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`higher > lower + margin`.

    Attributes:
        text: as the claim has it.
        higher: a cell, as `<attack>/<row>/<column>`; None stands for 0.
        lower: likewise.
        margin: in units of accuracy.
    """

    text: str
    higher: str | None
    lower: str | None
    margin: float

    @property
    def cells(self) -> list[str]:
        """The cells that it compares, one or two."""
        return [cell for cell in (self.higher, self.lower) if cell]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the outcomes say of a comparison.

    Attributes:
        outcome: `"held"` or `"reversed"` if significant.
        detail: the comparison with its accuracies and p-value, or with what is missing.
        adjusted_p: after Holm; NaN if a cell is missing.
    """

    outcome: Outcome
    detail: str
    adjusted_p: float = np.nan


def comparisons(claim: paper.Claim) -> list[Comparison]:
    """Return all that a claim rests on, one comparison for each choice from its groups.

    Raises:
        ValueError: if one has no cell.
    """
    found = []
    for pattern in claim.rests_on:
        fields = (name for _, name, _, _ in string.Formatter().parse(pattern) if name)
        names = list(dict.fromkeys(fields))
        for values in itertools.product(*(paper.CLAIM_GROUPS[n] for n in names)):
            text = pattern.format(**dict(zip(names, values, strict=True)))
            for pair in itertools.pairwise(text.split(" > ")):
                (higher, above), (lower, below) = map(_side, pair)
                if higher is None and lower is None:
                    raise ValueError(f"{claim.key} compares two levels: {pattern}")
                margin = round(below - above, 6)
                found.append(Comparison(" > ".join(pair), higher, lower, margin))
    return found


def _side(text: str) -> tuple[str | None, float]:
    """Split `"FGSM/bagging/fgsm + 0.07"` or `"0.56 + 0.02"` into cell and number."""
    first, *rest = text.split(" ")
    number = sum(float(sign + x) for sign, x in zip(rest[::2], rest[1::2], strict=True))
    return (first, number) if "/" in first else (None, float(first) + number)


def judge(
    cells: Sequence[Cell],
    *,
    claims: Sequence[paper.Claim] = paper.CLAIMS,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """Judge each claim on each data set that it is about and that has cells.

    Args:
        cells: of Tables 2 and 4, of one or more data sets.
        claims: what to judge.
        alpha: the probability of one or more false findings in a data set.

    Returns:
        A row a claim and data set. `held`, `reversed` and `total` count comparisons,
        `reason` names the first that decided against the claim.

    Raises:
        ValueError: if cells of a data set are of different images.
    """
    rows = []
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        answers = {
            f"{cell.attack}/{cell.row}/{cell.column}": cell.correct
            for cell in cells
            if cell.dataset == dataset
        }
        if len(sizes := {correct.shape[1] for correct in answers.values()}) > 1:
            raise ValueError(
                f"Tables 2 and 4 on {dataset} must be of the same test images. "
                f"Received: {' and '.join(map(str, sorted(sizes)))} images"
            )
        about = [claim for claim in claims if dataset in claim.datasets]
        findings = _findings([c for a in about for c in comparisons(a)], answers, alpha)
        for claim in about:
            found = [findings[comparison] for comparison in comparisons(claim)]
            outcomes = [finding.outcome for finding in found]
            result, reason = verdict(found)
            rows.append(
                {
                    "key": claim.key,
                    "section": claim.section,
                    "dataset": dataset,
                    "claim": claim.text,
                    "held": outcomes.count("held"),
                    "reversed": outcomes.count("reversed"),
                    "total": len(found),
                    "largest_adjusted_p": pd.Series(
                        [finding.adjusted_p for finding in found]
                    ).max(),
                    "verdict": result,
                    "reason": reason,
                }
            )
    return pd.DataFrame(rows)


def judge_readings(cells: Sequence[Cell]) -> pd.DataFrame:
    """Do what `judge` does, and judge each claim once more in each of `READINGS`.

    Returns:
        As of `judge`, with a column `verdict_<reading>` behind, which is empty where a
        claim rests on the same cells, or says itself how labels are read.
    """
    frame = judge(cells)
    columns = {
        claim.key: [
            (attack, column)
            for comparison in comparisons(claim)
            for attack, _, column in (cell.split("/") for cell in comparison.cells)
        ]
        for claim in paper.CLAIMS
    }
    for name, reading in READINGS.items():
        kept = [cell for cell in cells if (cell.attack, cell.column) not in reading]
        read = [
            dataclasses.replace(cell, column=column)
            for cell in cells
            for (attack, column), other in reading.items()
            if (cell.attack, cell.column) == (attack, other)
        ]
        again = {
            (row["dataset"], row["key"]): row["verdict"]
            for row in judge([*kept, *read]).to_dict("records")
        }
        frame[f"verdict_{name}"] = [
            again.get((dataset, key), MISSING)
            if not {*reading}.isdisjoint(columns[key])
            and not any("repredicted" in column for _, column in columns[key])
            else ""
            for dataset, key in zip(frame["dataset"], frame["key"], strict=True)
        ]
    return frame


def verdict(findings: Sequence[Finding]) -> tuple[str, str]:
    """Return the verdict on a claim that rests on all of the findings, and its reason.

    One reversed comparison refutes it. Else a missing cell leaves it undetermined, and
    so does an open comparison, at this scale. If all hold, it is reproduced.
    """
    verdicts: dict[Outcome, str] = {
        "reversed": NOT_REPRODUCED,
        "missing": MISSING,
        "open": OPEN,
    }
    for outcome, result in verdicts.items():
        against = [f.detail for f in findings if f.outcome == outcome]
        if against:
            more = f" and {len(against) - 1} more" if against[1:] else ""
            return result, f"{outcome}: {against[0]}{more}"
    return REPRODUCED, ""


def _findings(
    found: Sequence[Comparison], answers: Mapping[str, np.ndarray], alpha: float
) -> dict[Comparison, Finding]:
    """Test each comparison once, however many claims rest on it."""
    findings = {}
    tested = []
    for comparison in dict.fromkeys(found):
        if absent := [cell for cell in comparison.cells if cell not in answers]:
            findings[comparison] = Finding("missing", f"no cell {' and '.join(absent)}")
        else:
            tested.append(comparison)
    p_values = holm([_p_value(comparison, answers) for comparison in tested])
    for comparison, p in zip(tested, p_values, strict=True):
        means: dict[str | None, float] = {
            cell: answers[cell].mean() for cell in comparison.cells
        }
        gap = means.get(comparison.higher, 0) - means.get(comparison.lower, 0)
        outcome: Outcome = "open"
        if p < alpha:
            outcome = "held" if gap > comparison.margin else "reversed"
        shown = ", ".join(f"{mean:.4f}" for mean in means.values())
        detail = f"{comparison.text} ({shown}; p = {p:.2g})"
        findings[comparison] = Finding(outcome, detail, float(p))
    return findings


def _p_value(comparison: Comparison, answers: Mapping[str, np.ndarray]) -> float:
    higher, lower, margin = comparison.higher, comparison.lower, comparison.margin
    if higher and lower:
        return paired_test(answers[higher], answers[lower], margin=margin)
    (cell,) = comparison.cells
    return level_test(answers[cell], abs(margin))
