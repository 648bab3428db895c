"""Why an ensemble is as robust as it is: from arrays to the "why" of an audit.

Every function returns what `audit.json` holds: lists and dictionaries of plain numbers.
"""

from typing import Final, TypeAlias, TypedDict

import numpy as np

from advens.arrays import Answers, Floats, Ints, Labels
from advens.evaluation.statistics import wilson_interval

# Guo et al. 2017, arXiv:1706.04599, Section 5.
NUM_BINS: Final = 15

Table: TypeAlias = list[list[float]]


class Accuracy(TypedDict):
    """An accuracy with its Wilson 95 % interval."""

    value: float
    low: float
    high: float


class Bin(TypedDict):
    """The images whose confidence lies in `(low, high]`.

    `confidence` and `accuracy` are their means, `count` is their number, >= 1.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class Calibration(TypedDict):
    """See `calibration`."""

    ece: float
    brier: float
    bins: list[Bin]


# "class" is a word of Python.
ClassResults = TypedDict(
    "ClassResults",
    {
        "class": int,
        "num_images": int,
        "clean": Accuracy,
        "robust": Accuracy,
        "taken_for": list[int],
    },
)


def accuracy(right: Answers) -> Accuracy:
    """Return the share of right answers with its Wilson 95 % interval.

    Args:
        right: `(n,)` bool, n >= 1.
    """
    _check_answers("right", right, ndim=1)
    value = float(right.mean())
    low, high = wilson_interval(value, len(right))
    return {"value": value, "low": low, "high": high}


def transfer(right: Answers) -> Table:
    """Return the accuracy of each judged model under the attack on each member.

    Args:
        right: `(m, m + 1, n)` bool: whether model j is right on the images that were
            made with the gradient of member i. The last model is the ensemble.

    Returns:
        `m` rows of `m + 1` accuracies.
    """
    _check_answers("right", right, ndim=3)
    return right.mean(axis=-1).tolist()


def error_agreement(right: Answers) -> Table:
    """Return how far each two members err on the same images: their error consistency.

    Geirhos et al. 2020, arXiv:2006.16736: Cohen's kappa of being right or
    wrong, (c - e) / (1 - e). c is the share of images on which both are right or both
    are wrong, and e what c would be if two members of these accuracies erred
    independently, `a b + (1 - a) (1 - b)`. It is 1 for the same errors, 0 for
    independent ones, and negative if one tends to be right where the other is wrong. So
    members do not seem alike only because both err often, or both seldom.

    Two members that are right on every image, or wrong on every image, have 1.

    Args:
        right: `(m, n)` bool, whether each member is right.

    Returns:
        `m` rows of `m` values in [-1, 1].
    """
    _check_answers("right", right, ndim=2)
    hits, misses = right.astype(float), (~right).astype(float)
    num_images = right.shape[1]
    observed = (hits @ hits.T + misses @ misses.T) / num_images
    a = hits.mean(axis=1)
    by_chance = np.outer(a, a) + np.outer(1 - a, 1 - a)
    # Only if `a` is all zeros and ones can chance explain everything, and `observed` is
    # then 1, too.
    kappa = np.ones_like(observed)
    np.divide(observed - by_chance, 1 - by_chance, out=kappa, where=by_chance < 1)
    return kappa.tolist()


def sign_agreement(signs: Ints) -> list[list[float | None]]:
    """Return how often the gradients of each two members have the same sign.

    FGSM, and every step in the Linf norm, follows the sign alone: 1 means that one
    step fools both or none, .5 is what unrelated gradients have.

    Args:
        signs: `(m, n, ...)`, the sign of each entry of the members' gradients at the
            same images: -1, 0 or 1.

    Returns:
        `m` rows of `m` shares: of the entries that are zero for neither member, those
        with equal signs; None if there are no such entries.
    """
    if signs.ndim < 2 or not signs.size or not np.isin(signs, (-1, 0, 1)).all():
        raise ValueError(
            "`signs` must be an array `(m, n, ...)` of -1, 0 and 1, not empty. "
            f"Received: {signs.dtype}, shape {signs.shape}"
        )
    members = signs.reshape(len(signs), -1)

    def share(a: Ints, b: Ints) -> float | None:
        both = (a != 0) & (b != 0)
        return float((a == b)[both].mean()) if both.any() else None

    return [[share(a, b) for b in members] for a in members]


def calibration(probs: Floats, y: Labels) -> Calibration:
    """Return how far probabilities can be trusted.

    - `ece`: the expected calibration error, Guo et al. 2017, arXiv:1706.04599,
      equation 3: the mean over the images of |accuracy - confidence| of their bin. The
      confidence is the largest probability; the 15 bins are equally wide.
    - `brier`: the mean over the images of sum over k of (p_k - [y = k])², from 0 to 2
      (Brier 1950, "Verification of forecasts expressed in terms of probability",
      Monthly Weather Review 78(1)).
    - `bins`: those bins that hold images, from low to high confidence.

    Args:
        probs: `(n, num_classes)` in [0, 1].
        y: `(n,)` int, the true labels.
    """
    if (
        probs.ndim != 2
        or not probs.size
        or not (probs.min() >= 0 and np.allclose(probs.sum(axis=1), 1, atol=1e-3))
    ):
        raise ValueError(
            "`probs` must be probabilities `(n, num_classes)` of at least one image, "
            f"which sum to 1. Received: {probs.dtype}, shape {probs.shape}"
        )
    _check_classes("y", y, *probs.shape)
    probs = probs.astype(np.float64)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == y
    edges = np.linspace(0, 1, NUM_BINS + 1)
    of_image = np.digitize(confidence, edges[1:-1], right=True)
    bins: list[Bin] = []
    for i in np.unique(of_image):
        inside = of_image == i
        bins.append(
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "count": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
        )
    gaps = [b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins]
    errors = probs - np.eye(probs.shape[1])[y]
    return {
        "ece": float(sum(gaps) / len(y)),
        "brier": float(np.square(errors).sum(axis=1).mean()),
        "bins": bins,
    }


def classes(
    y: Labels,
    clean: Answers,
    robust: Answers,
    predicted: Labels,
    *,
    num_classes: int,
) -> list[ClassResults]:
    """Return what becomes of the images of each class.

    Args:
        y: `(n,)` int, the true labels.
        clean: `(n,)` bool, whether the ensemble is right without attack.
        robust: `(n,)` bool, whether it is right under every attack.
        predicted: `(n,)` int, the class that it gives to the attacked image.
        num_classes: k.

    Returns:
        One entry per class that has images. `taken_for` counts, for each of the k
        classes, how many of these images are given to it when attacked.
    """
    for name, labels in (("y", y), ("predicted", predicted)):
        _check_classes(name, labels, len(y), num_classes)
    for name, answers in (("clean", clean), ("robust", robust)):
        _check_answers(name, answers, ndim=1)
        if len(answers) != len(y):
            raise ValueError(
                f"`{name}` must be one answer per image. Received: {len(answers)} for "
                f"{len(y)} images"
            )
    return [
        {
            "class": int(label),
            "num_images": int((y == label).sum()),
            "clean": accuracy(clean[y == label]),
            "robust": accuracy(robust[y == label]),
            "taken_for": np.bincount(
                predicted[y == label], minlength=num_classes
            ).tolist(),
        }
        for label in np.unique(y)
    ]


def _check_answers(name: str, answers: Answers, *, ndim: int) -> None:
    if answers.ndim != ndim or not answers.size or answers.dtype != bool:
        raise ValueError(
            f"`{name}` must be a bool array of {ndim} axes, not empty. Received: "
            f"{answers.dtype}, shape {answers.shape}"
        )


def _check_classes(
    name: str, labels: Labels, num_images: int, num_classes: int
) -> None:
    is_int = labels.dtype.kind in "iu"
    if labels.shape != (num_images,) or not is_int or not num_images:
        raise ValueError(
            f"`{name}` must be `({num_images},)` integer labels. Received: "
            f"{labels.dtype}, shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"`{name}` must be labels from 0 to {num_classes - 1}. Received: "
            f"{labels.min()} to {labels.max()}"
        )
