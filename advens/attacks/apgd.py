"""Auto-PGD: projected gradient descent that chooses its step sizes."""

import math

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

# Section 3 of the source: the weight of a step against the momentum, and the share of
# steps that must raise the loss.
_STEP_WEIGHT = 0.75
_RAISING_SHARE = 0.75


def apgd(
    followed: Followed,
    x: Images,
    y: Labels,
    *,
    eps: float | Floats,
    norm: Norm = "linf",
    num_steps: int = 100,
    targets: Labels | None = None,
    rng: np.random.Generator,
) -> Found:
    """Follow the gradient with momentum; halve an image's step where it stops to help.

    The step starts at 2 eps. At each checkpoint it is halved for the images whose loss
    rose too rarely since the last one, or whose best loss and step stayed the same;
    these go on from their best point. An image is left alone as soon as it is broken.

    Source: Croce & Hein 2020, arXiv:2003.01690, Algorithm 1.

    Args:
        followed: the gradient that is followed.
        x: `(n, ...)` float32 in [0, 1].
        y: `(n,)` int labels.
        eps: radius of the ball, one or one per image, in units of the [0, 1] range,
            > 0.
        norm: of the ball.
        num_steps: number of steps, >= 1.
        targets: `(n,)` int classes, for `objective="targeted_dlr"`.
        rng: draws the starts.
    """

    def evaluate(rows: np.ndarray) -> None:
        of_rows = () if targets is None else (targets[rows],)
        losses[rows], grads[rows], right = followed(x_adv[rows], y[rows], *of_rows)
        found.record(rows, x_adv[rows], losses[rows], right, grads[rows])
        better = rows[losses[rows] > best_losses[rows]]
        best[better], best_grads[better] = x_adv[better], grads[better]
        best_losses[better] = losses[better]

    eps = radii(eps, x)
    found = Found(x)
    x_adv = random_start(x, eps, norm, rng)
    previous, best = x_adv.copy(), x_adv.copy()
    grads, best_grads = np.zeros_like(x), np.zeros_like(x)
    losses = np.full(len(x), -np.inf, "float32")
    best_losses = losses.copy()
    evaluate(np.arange(len(x)))

    step_sizes = np.array(2 * eps)
    rises = np.zeros(len(x), int)
    halved = np.ones(len(x), bool)  # no image can have failed to improve yet
    best_at_check = best_losses.copy()
    last_check, checks = 0, _checkpoints(num_steps)
    for step in range(1, num_steps + 1):
        rows = found.resisting()
        if not len(rows):
            break
        here, start = x_adv[rows], x[rows]
        move = spread(step_sizes[rows], here) * steepest(grads[rows], norm)
        target = projected(here + move, start, eps[rows], norm)
        weight = _STEP_WEIGHT if step > 1 else 1.0
        momentum = here - previous[rows]
        blend = here + weight * (target - here) + (1 - weight) * momentum
        previous[rows] = here
        x_adv[rows] = projected(blend, start, eps[rows], norm)
        losses_before = losses.copy()
        evaluate(rows)
        rises += losses > losses_before
        if step in checks:
            stuck = ~halved & (best_losses <= best_at_check)
            halved = stuck | (rises < _RAISING_SHARE * (step - last_check))
            step_sizes[halved] /= 2
            x_adv[halved], grads[halved] = best[halved], best_grads[halved]
            best_at_check, last_check = best_losses.copy(), step
            rises[:] = 0
    return found


def _checkpoints(num_steps: int) -> set[int]:
    """Return the steps after which step sizes are chosen: equation 3 of the source."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    # .41 + .16 is more than .57 in floating point.
    return {math.ceil(round(share * num_steps, 6)) for share in shares[1:]}
