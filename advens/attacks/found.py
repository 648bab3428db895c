"""What an attack in numpy has found so far."""

import numpy as np

from advens.arrays import Answers, Floats, Images, Ints


class Found:
    """For each image, the first one that fools the ensemble, or the best attempt.

    Args:
        x: `(n, ...)` float32 in [0, 1], the images as they are.

    Attributes:
        x_adv: `(n, ...)` float32, the image that fooled the ensemble; if none did, that
            of the largest loss.
        broken: `(n,)` bool, whether one did.
        num_attempts: `(n,)` int, how many images were tried for each.
        zero_gradient: `(n,)` bool, whether the gradient that was followed was exactly
            zero at any step, so that it showed no way.
    """

    def __init__(self, x: Images) -> None:
        self.x_adv: Images = x.copy()
        self.broken: Answers = np.zeros(len(x), bool)
        self.num_attempts: Ints = np.zeros(len(x), int)
        self.zero_gradient: Answers = np.zeros(len(x), bool)
        self._losses: Floats = np.full(len(x), -np.inf, "float32")

    def resisting(self) -> Ints:
        """Return the indices of the images that are not broken yet."""
        return np.flatnonzero(~self.broken)

    def record(
        self,
        rows: Ints,
        x_adv: Images,
        losses: Floats,
        right: Answers,
        grads: Floats | None = None,
    ) -> None:
        """Take note of attempts.

        Args:
            rows: `(k,)`, which images they are for; none of them is broken yet.
            x_adv: `(k, ...)`, the attempts.
            losses: `(k,)`, what the attack makes larger.
            right: `(k,)`, whether the ensemble is right about them.
            grads: `(k, ...)`, the gradients, if the attack follows any.
        """
        better = ~right | (losses > self._losses[rows])
        self.x_adv[rows[better]] = x_adv[better]
        self._losses[rows] = np.maximum(self._losses[rows], losses)
        self.broken[rows] = ~right
        self.num_attempts[rows] += 1
        if grads is not None:
            self.zero_gradient[rows] |= ~grads.reshape(len(rows), -1).any(axis=1)
