"""Which answers of the members and of the ensemble are right, image by image."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from advens.arrays import Answers, Labels


class Outcomes(NamedTuple):
    """How `m` members and their ensemble classify `n` images, attacked or not.

    Attributes:
        members: `(m, n)` bool, whether each member is right.
        ensemble: `(n,)` bool, whether the ensemble is right.
        zero_gradient: `(n,)` bool, see `attacks.fgsm_bim.AdversarialExamples`; False
            without attack.
    """

    members: Answers
    ensemble: Answers
    zero_gradient: Answers


def worst_case(outcomes: Sequence[Outcomes]) -> Answers:
    """Return which images the ensemble still classifies correctly under every attack.

    Its mean is the accuracy under an attacker who takes, for each image, whichever of
    the attacks succeeds. Such an attacker can also leave an image alone: the outcomes
    without attack belong into the list.

    Args:
        outcomes: those of several attacks or gradients, and those without attack, on
            the same images.

    Returns:
        `(n,)` bool.
    """
    if not outcomes:
        raise ValueError(
            "`outcomes` must hold the outcomes of at least one attack. Received: none"
        )
    return np.logical_and.reduce([outcome.ensemble for outcome in outcomes])


def count_lost_classes(correct: Answers, y: Labels) -> list[int]:
    """Return how many classes each member recognises less often than guessing would.

    Args:
        correct: `(m, n)`, the right answers of `m` members without attack.
        y: `(n,)`, the labels.
    """
    recalls = np.stack([correct[:, y == label].mean(axis=1) for label in np.unique(y)])
    return np.sum(recalls < 1 / len(recalls), axis=0).tolist()


def join_outcomes(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the outcomes of several batches of images as one."""
    return Outcomes(
        *(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True))
    )


def pack_outcomes(outcomes: Sequence[Outcomes]) -> dict[str, np.ndarray]:
    """Turn outcomes into arrays of one bit per answer."""
    arrays = {"num_images": np.array(outcomes[0].ensemble.shape[-1])}
    for i, outcome in enumerate(outcomes):
        for name, bits in outcome._asdict().items():
            arrays[f"{i}_{name}"] = np.packbits(bits, axis=-1)
    return arrays


def unpack_outcomes(arrays: Mapping[str, np.ndarray]) -> list[Outcomes]:
    """Return the outcomes that `pack_outcomes` packed."""
    count = int(arrays["num_images"])
    num_outcomes = (len(arrays) - 1) // len(Outcomes._fields)
    return [
        Outcomes(
            *(
                np.unpackbits(arrays[f"{i}_{name}"], axis=-1, count=count).astype(bool)
                for name in Outcomes._fields
            )
        )
        for i in range(num_outcomes)
    ]
