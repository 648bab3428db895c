"""What a whole data set's images are taken for: by each member, by the ensemble."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Outcomes(NamedTuple):
    """What `m` members and their ensemble say of `n` images, attacked or not.

    Attributes:
        members: `(m, n)` bool, whether each member is right.
        ensemble: `(n,)` bool, whether the ensemble is right.
        zero_gradient: `(n,)` bool, see `attacks.Adversarial`; False without attack.
    """

    members: np.ndarray
    ensemble: np.ndarray
    zero_gradient: np.ndarray


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the outcomes of all batches of images as one."""
    return Outcomes(*(np.concatenate(a, axis=-1) for a in zip(*parts, strict=True)))


def pack(outcomes: Sequence[Outcomes]) -> dict[str, np.ndarray]:
    """Turn outcomes into arrays of one bit an image."""
    arrays = {"num_images": np.array(outcomes[0].ensemble.shape[-1])}
    for i, outcome in enumerate(outcomes):
        for name, bits in outcome._asdict().items():
            arrays[f"{i}_{name}"] = np.packbits(bits, axis=-1)
    return arrays


def unpack(arrays: dict[str, np.ndarray]) -> list[Outcomes]:
    """Return the outcomes that `pack` packed."""
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
