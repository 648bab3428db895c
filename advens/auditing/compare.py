"""Two audits of the same images side by side."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from advens.arrays import Answers
from advens.evaluation.statistics import mcnemar, paired_interval

# What tells one audit from another: its name and where it is in audit.json.
_SETTINGS: Final = {
    "eps": ("settings", "eps"),
    "norm": ("settings", "norm"),
    "votes": ("settings", "votes"),
    "seed": ("settings", "seed"),
    "advens": ("advens",),
}
# Robust accuracies under different ones of these answer different questions.
_THREAT: Final = ("eps", "norm")


def compare(
    document: Mapping[str, Any],
    outcomes: Mapping[str, np.ndarray],
    other_document: Mapping[str, Any],
    other_outcomes: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Return two audits side by side, with paired tests.

    Args:
        document: what audit.json of this audit holds.
        outcomes: the arrays of its outcomes.npz: "y", "clean_ensemble" and "robust".
        other_document: that of the other audit.
        other_outcomes: the arrays of the other audit.

    Returns:
        - "settings": `{"name", "this", "other"}`, one per setting
        - "same_threat": whether the norm and eps are the same
        - "trusted": whether each audit is, this one first
        - "accuracies": for "clean" and "robust" `{"name", "this", "other",
          "only_this", "only_other", "difference", "p_value"}`: the accuracies, the
          numbers of images that one ensemble alone classifies correctly, this accuracy
          minus the other with its 95 % interval, and McNemar's exact p-value
        - "eps_curves": the accuracy over eps, this one's first

    Raises:
        ValueError: if the audits are not of the same images.
    """
    _check_same_images(document, outcomes, other_document, other_outcomes)
    y = outcomes["y"]
    clean = outcomes["clean_ensemble"] == y, other_outcomes["clean_ensemble"] == y
    robust = outcomes["robust"], other_outcomes["robust"]
    both = document, other_document
    settings = [
        {"name": name, "this": _at(document, path), "other": _at(other_document, path)}
        for name, path in _SETTINGS.items()
    ]
    for name in ("members", "attacks"):
        this, other = (len(one[name]) for one in both)
        settings.append({"name": name, "this": this, "other": other})
    return {
        "settings": settings,
        "same_threat": all(
            row["this"] == row["other"] for row in settings if row["name"] in _THREAT
        ),
        "trusted": [one["trusted"] for one in both],
        "accuracies": [
            _paired(name, document, other_document, *answers)
            for name, answers in (("clean", clean), ("robust", robust))
        ],
        "eps_curves": [(one.get("curves") or {}).get("eps") or [] for one in both],
    }


def _paired(
    name: str,
    document: Mapping[str, Any],
    other_document: Mapping[str, Any],
    this: Answers,
    other: Answers,
) -> dict[str, Any]:
    low, high = paired_interval(this, other)
    difference = float(this.mean() - other.mean())
    return {
        "name": name,
        "this": document[f"{name}_accuracy"],
        "other": other_document[f"{name}_accuracy"],
        "only_this": int((this & ~other).sum()),
        "only_other": int((other & ~this).sum()),
        "difference": {"value": difference, "low": low, "high": high},
        "p_value": mcnemar(this, other),
    }


def _check_same_images(
    document: Mapping[str, Any],
    outcomes: Mapping[str, np.ndarray],
    other_document: Mapping[str, Any],
    other_outcomes: Mapping[str, np.ndarray],
) -> None:
    this, other = document["data"]["sha256"], other_document["data"]["sha256"]
    if this != other:
        raise ValueError(
            "Both audits must be of the same images. Received: data whose sha256 is "
            f"{this[:12]}… and {other[:12]}…"
        )
    if not np.array_equal(outcomes["y"], other_outcomes["y"]):
        raise ValueError(
            "Both audits must be of the same images with the same labels. Received: "
            f"{len(outcomes['y'])} and {len(other_outcomes['y'])} labels that differ"
        )


def _at(document: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        document = document[key]
    return document
