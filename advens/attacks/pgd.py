"""Projected gradient descent from random starts."""

import numpy as np

from advens.arrays import Floats, Images, Labels
from advens.attacks.balls import (
    Norm,
    projected,
    radii,
    random_start,
    spread,
    steepest,
)
from advens.attacks.found import Found
from advens.attacks.queries import Followed


def pgd(
    followed: Followed,
    x: Images,
    y: Labels,
    *,
    eps: float | Floats,
    norm: Norm = "linf",
    num_steps: int = 40,
    step_size: float | Floats | None = None,
    num_restarts: int = 1,
    rng: np.random.Generator,
) -> Found:
    """Follow the gradient from random starts in the ball, projected to it at each step.

    An image is left alone as soon as it is broken.

    Source: Madry et al. 2017, arXiv:1706.06083.

    Args:
        followed: the gradient that is followed.
        x: `(n, ...)` float32 in [0, 1].
        y: `(n,)` int labels.
        eps: radius of the ball, one or one per image, in units of the [0, 1] range,
            > 0.
        norm: of the ball.
        num_steps: steps from each start, >= 1.
        step_size: length of a step in the norm; default: 2.5 eps / num_steps.
        num_restarts: random starts per image, >= 1.
        rng: draws the starts.
    """
    eps = radii(eps, x)
    if step_size is None:
        step_size = 2.5 * eps / num_steps
    step_sizes = np.broadcast_to(step_size, len(x))
    found = Found(x)
    for _ in range(num_restarts):
        x_adv = random_start(x, eps, norm, rng)
        for step in range(num_steps + 1):
            rows = found.resisting()
            if not len(rows):
                break
            losses, grads, right = followed(x_adv[rows], y[rows])
            found.record(rows, x_adv[rows], losses, right, grads)
            if step < num_steps:
                step_along = steepest(grads, norm)
                moved = x_adv[rows] + spread(step_sizes[rows], x) * step_along
                x_adv[rows] = projected(moved, x[rows], eps[rows], norm)
    return found
