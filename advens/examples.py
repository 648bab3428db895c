"""The images of Figure 1: one of each class, right and then fooled."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from advens.attacks import Attack
    from advens.datasets import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A test image of each class, in class order, before and under an attack.

    Attributes:
        dataset: which holds the images.
        indices: `(k,)` int, which test images; see `choose`.
        before: `(k,)` int, the labels predicted without attack.
        x_adv: `(k, h, w, c)` float32, the attacked images.
        after: `(k,)` int, the labels predicted for `x_adv`.
        attack: its settings.
        deviations: see `experiments.Run.deviations`.
    """

    dataset: Dataset
    indices: np.ndarray
    before: np.ndarray
    x_adv: np.ndarray
    after: np.ndarray
    attack: Attack
    deviations: Sequence[str] = ()

    @property
    def shortfalls(self) -> list[str]:
        """What the images lack, class by class, of being right and then fooled."""
        names = self.dataset.class_names
        labels = self.dataset.y_test[self.indices]
        absent = [name for i, name in enumerate(names) if i not in labels]
        found = [f"no test image of {name}" for name in absent]
        for y, before, after in zip(labels, self.before, self.after, strict=True):
            if before != y:
                found.append(f"{names[y]} is misclassified without attack")
            elif after == y:
                found.append(f"{names[y]} is not fooled")
        return found


def choose(y: np.ndarray, right: np.ndarray, right_attacked: np.ndarray) -> np.ndarray:
    """Return each class's first image that is classified correctly and then fooled.

    Of a class without such an image, return the first that is classified correctly, or
    else the first that is wrong under attack, or else the first.

    Args:
        y: `(n,)` int labels.
        right: `(n,)` bool, whether each image is classified correctly.
        right_attacked: `(n,)` bool, the same under attack.

    Returns:
        `(k,)` int indices, in the order of the classes that `y` holds.
    """
    rank = 2 * right.astype(int) + ~right_attacked
    return np.array(
        [np.argmax(np.where(y == label, rank, -1)) for label in np.unique(y)]
    )
