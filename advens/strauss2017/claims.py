"""Which claims of the paper the outcomes of Tables 2 and 4 support.

A claim (see `paper_claims.CLAIMS`) rests on comparisons of accuracies on the same test
images. A comparison holds, is reversed, or is open because its difference may be due to
chance. Two-sided p-values decide (`statistics.paired_test`, `statistics.level_test`),
adjusted by Holm's method over all comparisons of a data set. `verdict` turns the
comparisons of a claim into a verdict.
"""

import dataclasses
import itertools
import string
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from advens.arrays import Answers
from advens.evaluation.statistics import holm, level_test, paired_test
from advens.strauss2017 import columns
from advens.strauss2017.cells import Cell
from advens.strauss2017.columns import Alternative
from advens.strauss2017.paper_claims import CLAIMS, GROUPS, Claim

ALPHA: Final = 0.05

REPRODUCED: Final = "reproduced"
NOT_REPRODUCED: Final = "not reproduced"
OPEN: Final = "undetermined at this scale"
MISSING: Final = "undetermined"
VERDICTS: Final = (REPRODUCED, NOT_REPRODUCED, OPEN, MISSING)

Decision = Literal["held", "reversed", "open", "missing"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The statement that `higher > lower + margin`.

    Attributes:
        text: the statement in the words of the claim.
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
        """The cells that are compared, one or two."""
        return [cell for cell in (self.higher, self.lower) if cell]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the outcomes say about a comparison.

    Attributes:
        decision: `"held"` or `"reversed"` if the difference is significant.
        detail: the comparison with its accuracies and p-value, or with what is missing.
        adjusted_p: the p-value after Holm's adjustment; NaN if a cell is missing.
    """

    decision: Decision
    detail: str
    adjusted_p: float = np.nan


def comparisons(claim: Claim) -> list[Comparison]:
    """Return the comparisons of a claim, one for each choice from its groups.

    Raises:
        ValueError: if a comparison has no cell.
    """
    spelt_out = []
    for pattern in claim.rests_on:
        fields = [name for _, name, _, _ in string.Formatter().parse(pattern) if name]
        names = list(dict.fromkeys(fields))
        for values in itertools.product(*(GROUPS[name] for name in names)):
            text = pattern.format(**dict(zip(names, values, strict=True)))
            for left, right in itertools.pairwise(text.split(" > ")):
                higher, above = _cell_and_number(left)
                lower, below = _cell_and_number(right)
                if higher is None and lower is None:
                    raise ValueError(f"{claim.key} compares two levels: {pattern}")
                # Sums of decimals such as 0.07 - 0.02 are rounded to what is meant.
                margin = round(below - above, 6)
                comparison = Comparison(f"{left} > {right}", higher, lower, margin)
                spelt_out.append(comparison)
    return spelt_out


def _cell_and_number(text: str) -> tuple[str | None, float]:
    """Split `"FGSM/bagging/fgsm + 0.07"` or `"0.56 + 0.02"` into cell and number."""
    first, *rest = text.split(" ")
    number = sum(float(sign + x) for sign, x in zip(rest[::2], rest[1::2], strict=True))
    return (first, number) if "/" in first else (None, float(first) + number)


def judge(
    cells: Sequence[Cell], *, claims: Sequence[Claim] = CLAIMS, alpha: float = ALPHA
) -> pd.DataFrame:
    """Judge each claim on each data set that it is about and that has cells.

    Args:
        cells: those of Tables 2 and 4, of one or more data sets.
        claims: what to judge.
        alpha: the probability of at least one false finding in a data set.

    Returns:
        One row per claim and data set. `held`, `reversed` and `total` count
        comparisons; `reason` names the first one that decided against the claim.

    Raises:
        ValueError: if cells of a data set are of different images.
    """
    lines = []
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        answers = {
            f"{cell.attack}/{cell.row}/{cell.column}": cell.correct
            for cell in cells
            if cell.dataset == dataset
        }
        sizes = {correct.shape[1] for correct in answers.values()}
        if len(sizes) > 1:
            raise ValueError(
                f"Tables 2 and 4 on {dataset} must be of the same test images. "
                f"Received: {' and '.join(map(str, sorted(sizes)))} images"
            )
        judged = [claim for claim in claims if claim.is_about(dataset)]
        findings = _findings(judged, answers, alpha)
        for claim in judged:
            of_claim = [findings[comparison] for comparison in comparisons(claim)]
            decisions = [finding.decision for finding in of_claim]
            result, reason = verdict(of_claim)
            p_values = pd.Series([finding.adjusted_p for finding in of_claim])
            lines.append(
                {
                    "key": claim.key,
                    "section": claim.section,
                    "dataset": dataset,
                    "claim": claim.text,
                    "held": decisions.count("held"),
                    "reversed": decisions.count("reversed"),
                    "total": len(of_claim),
                    "largest_adjusted_p": p_values.max(),
                    "verdict": result,
                    "reason": reason,
                }
            )
    return pd.DataFrame(lines)


def judge_alternatives(cells: Sequence[Cell]) -> pd.DataFrame:
    """Judge each claim of the paper, then once more in each of `columns.ALTERNATIVES`.

    Returns:
        As of `judge`, with a further column `verdict_<alternative>` for each
        alternative of which there are cells. It is empty where a claim rests on the
        same cells as before.
    """
    frame = judge(cells)
    present = {(cell.dataset, cell.column) for cell in cells}
    for alternative in columns.ALTERNATIVES:
        stand_ins = set(columns.stand_ins_of(alternative).values())
        having = {dataset for dataset, column in present if column in stand_ins}
        if not having:
            continue
        again = {
            (row["dataset"], row["key"]): row["verdict"]
            for row in judge(_reread(cells, alternative)).to_dict("records")
        }
        affected = {claim.key for claim in CLAIMS if _depends_on(claim, alternative)}
        frame[f"verdict_{alternative}"] = [
            again.get((dataset, key), MISSING)
            if key in affected and dataset in having
            else ""
            for dataset, key in zip(frame["dataset"], frame["key"], strict=True)
        ]
    return frame


def _reread(cells: Sequence[Cell], alternative: Alternative) -> list[Cell]:
    """Return the cells with those of an alternative in the place of the paper's."""
    stand_ins = columns.stand_ins_of(alternative)
    kept = [cell for cell in cells if (cell.attack, cell.column) not in stand_ins]
    read = [
        dataclasses.replace(cell, column=column)
        for cell in cells
        for (attack, column), stand_in in stand_ins.items()
        if (cell.attack, cell.column) == (attack, stand_in)
    ]
    return kept + read


def _depends_on(claim: Claim, alternative: Alternative) -> bool:
    """Return whether a claim is judged on other cells in an alternative."""
    compared = set()
    for comparison in comparisons(claim):
        for cell in comparison.cells:
            attack, _, column = cell.split("/")
            compared.add((attack, column))
    return not compared.isdisjoint(columns.stand_ins_of(alternative))


def verdict(findings: Sequence[Finding]) -> tuple[str, str]:
    """Return the verdict on a claim that rests on these findings, and its reason.

    A single reversed comparison refutes the claim. Otherwise it is undetermined if a
    cell is missing, and undetermined at this scale if a comparison is open. If all
    comparisons hold, it is reproduced.
    """
    verdicts: dict[Decision, str] = {
        "reversed": NOT_REPRODUCED,
        "missing": MISSING,
        "open": OPEN,
    }
    for decision, result in verdicts.items():
        against = [f.detail for f in findings if f.decision == decision]
        if against:
            more = f" and {len(against) - 1} more" if len(against) > 1 else ""
            return result, f"{decision}: {against[0]}{more}"
    return REPRODUCED, ""


def _findings(
    claims: Sequence[Claim], answers: Mapping[str, Answers], alpha: float
) -> dict[Comparison, Finding]:
    """Test each comparison once, however many claims rest on it."""
    findings = {}
    tested = []
    every = itertools.chain.from_iterable(map(comparisons, claims))
    for comparison in dict.fromkeys(every):
        absent = [cell for cell in comparison.cells if cell not in answers]
        if absent:
            detail = f"no cell {' and '.join(absent)}"
            findings[comparison] = Finding("missing", detail)
        else:
            tested.append(comparison)
    p_values = holm([_p_value(comparison, answers) for comparison in tested])
    for comparison, p in zip(tested, p_values, strict=True):
        accuracies: dict[str | None, float] = {
            cell: answers[cell].mean() for cell in comparison.cells
        }
        higher = accuracies.get(comparison.higher, 0)
        difference = higher - accuracies.get(comparison.lower, 0)
        decision: Decision = "open"
        if p < alpha:
            decision = "held" if difference > comparison.margin else "reversed"
        shown = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies.values())
        detail = f"{comparison.text} ({shown}; p = {p:.2g})"
        findings[comparison] = Finding(decision, detail, float(p))
    return findings


def _p_value(comparison: Comparison, answers: Mapping[str, Answers]) -> float:
    higher, lower, margin = comparison.higher, comparison.lower, comparison.margin
    if higher and lower:
        return paired_test(answers[higher], answers[lower], margin=margin)
    (cell,) = comparison.cells
    return level_test(answers[cell], abs(margin))
