"""What an audit tries on a sample of the images, beside its suite of attacks.

Each probe is a function of the ensemble and of images that are all attacked, also those
that are misclassified anyway.
"""

import numpy as np

from advens.arrays import Answers, Floats, Images, Labels
from advens.attacks.apgd import apgd
from advens.attacks.balls import lengths, projected, steepest
from advens.attacks.compiled import gradient
from advens.attacks.found import Found
from advens.attacks.queries import Followed, answers, in_batches
from advens.attacks.threat import GradientSource, Threat
from advens.auditing.explain import sign_agreement
from advens.auditing.suite import Budget, own_gradient
from advens.auditing.work import Arrays
from advens.models.ensemble import Ensemble

# How often noise is drawn: an image falls to noise if it falls to one of them.
_NOISES = 10
# The sizes of noise, as multiples of eps.
_NOISE_SIZES = np.array([0.5, 1.0, 2.0, 4.0])
# Seven halvings find the smallest radius up to 1 / 128 of the largest.
_HALVINGS = 7
# Images that are changed by half the range in every pixel can all be made the same.
HALF = 0.5


def noise(ensemble: Ensemble, x: Images, y: Labels, budget: Budget) -> Arrays:
    """Add noise of several sizes: random signs in L-infinity, random directions in L2.

    Returns:
        `right`, `(len(sizes), n)` bool: whether the ensemble is right under all draws;
        and `sizes`.
    """
    rng = np.random.default_rng([budget.seed, 1])
    sizes = budget.eps * _NOISE_SIZES
    right = np.ones((len(sizes), len(x)), bool)
    for _ in range(_NOISES):
        directions = steepest(rng.normal(size=x.shape).astype("float32"), budget.norm)
        for i, size in enumerate(sizes):
            radii = np.full(len(x), size, "float32")
            x_noisy = projected(x + size * directions, x, radii, budget.norm)
            right[i] &= _is_right(ensemble, x_noisy, y, budget)
    return {"right": right, "sizes": sizes}


def one_step(ensemble: Ensemble, x: Images, y: Labels, budget: Budget) -> Arrays:
    """Take one step of length eps (FGSM), and look at the gradients at the images.

    Returns:
        `right`, `(n,)` bool, whether the ensemble is right after the step; and whether
        gradients are exactly zero, `(n,)` bool: `zero`, the exact ones, and
        `framework_zero`, as the framework computes them.
    """
    own = own_gradient(ensemble)
    grads = _evaluated(ensemble, own, x, y, budget)
    radii = np.full(len(x), budget.eps, "float32")
    moved = x + budget.eps * steepest(grads, budget.norm)
    x_adv = projected(moved.astype("float32"), x, radii, budget.norm)
    usual = Threat("mean_member" if own == "adaptive" else own, loss="logits")
    followed = gradient(ensemble, usual)
    (framework,) = in_batches(lambda x, y: (followed(x, y),), (x, y), budget.batch_size)
    return {
        "right": _is_right(ensemble, x_adv, y, budget),
        "zero": _is_zero(grads),
        "framework_zero": _is_zero(framework),
    }


def many_steps(
    ensemble: Ensemble, x: Images, y: Labels, num_steps: int, budget: Budget
) -> Arrays:
    """Attack by APGD with a number of steps, and say after how many an image fell.

    Returns:
        `steps`, `(n,)` int: the step that broke an image; -1 if none did; and
        `num_steps`.
    """
    found = _apgd(ensemble, x, y, budget.eps, num_steps, budget)
    return {
        "steps": np.where(found.broken, found.num_attempts - 1, -1),
        "num_steps": np.array(num_steps),
    }


def smallest_eps(
    ensemble: Ensemble, x: Images, y: Labels, num_steps: int, budget: Budget
) -> Arrays:
    """Find the smallest radius at which APGD breaks each image, by bisection.

    Returns:
        `smallest`, `(n,)` float32: 0 for images that are misclassified anyway, infinity
        for those that resist at `largest`, a scalar.
    """
    largest = min(4 * budget.eps, HALF * _range(x, budget))
    low = np.zeros(len(x), "float32")
    high = np.full(len(x), np.inf, "float32")
    high[~_is_right(ensemble, x, y, budget)] = 0
    eps = np.full(len(x), largest, "float32")
    for halving in range(_HALVINGS):
        # After the first attack, those that resist it are settled, too.
        rows = np.flatnonzero(
            high > low if not halving else np.isfinite(high) & (high > 0)
        )
        if not len(rows):
            break
        found = _apgd(ensemble, x[rows], y[rows], eps[rows], num_steps, budget)
        # A change may be smaller than the ball allows.
        used = lengths(found.x_adv - x[rows], budget.norm)
        broken = found.broken
        high[rows[broken]] = np.minimum(used, eps[rows])[broken]
        low[rows[~broken]] = eps[rows[~broken]]
        eps = ((low + np.where(np.isfinite(high), high, low)) / 2).astype("float32")
    return {"smallest": high, "largest": np.array(largest)}


def unbounded(ensemble: Ensemble, x: Images, y: Labels, budget: Budget) -> Arrays:
    """Attack in a ball that holds the grey image: there, accuracy should be chance.

    Returns:
        `right`, `(n,)` bool.
    """
    found = _apgd(ensemble, x, y, HALF * _range(x, budget), 50, budget)
    return {"right": ~found.broken}


def randomness(ensemble: Ensemble, x: Images, y: Labels, budget: Budget) -> Arrays:
    """Ask for the same answers three times.

    Returns:
        `differs`, `(n,)` bool: whether the probabilities were not the same.
    """
    first, *others = (answers(ensemble, x, budget.batch_size)[1] for _ in range(3))
    return {"differs": np.any([(o != first).any(axis=1) for o in others], axis=0)}


def transfer(
    ensemble: Ensemble, x: Images, y: Labels, num_steps: int, budget: Budget
) -> Arrays:
    """Attack each member alone by APGD, and judge all of them and the ensemble.

    Returns:
        `right`, `(m, m + 1, n)` bool, see `explain.transfer`.
    """
    right = []
    for index in range(len(ensemble)):
        found = _apgd(ensemble, x, y, budget.eps, num_steps, budget, index)
        classes, log_probs = answers(ensemble, found.x_adv, budget.batch_size)
        right.append([*(classes == y[:, None]).T, log_probs.argmax(axis=1) == y])
    return {"right": np.array(right)}


def signs(ensemble: Ensemble, x: Images, y: Labels, budget: Budget) -> Arrays:
    """Compare the signs of the members' gradients at the images.

    Returns:
        `agreement`, `(m, m)` float, see `explain.sign_agreement`; NaN for None.
    """
    grads = [
        np.sign(_evaluated(ensemble, "member", x, y, budget, index)).astype("int8")
        for index in range(len(ensemble))
    ]
    return {"agreement": np.array(sign_agreement(np.stack(grads)), float)}


def robust(
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    num_steps: int,
    budget: Budget,
    size: int | None = None,
) -> Arrays:
    """Attack the ensemble, or that of its first members, through its own gradient.

    Returns:
        `clean` and `right`, `(n,)` bool, without and under attack by APGD.
    """
    if size is not None:
        ensemble = ensemble.first(size)
    clean = _is_right(ensemble, x, y, budget)
    found = _apgd(ensemble, x, y, budget.eps, num_steps, budget)
    return {"clean": clean, "right": clean & ~found.broken}


def _apgd(
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    eps: float | Floats,
    num_steps: int,
    budget: Budget,
    index: int | None = None,
) -> Found:
    source: GradientSource = own_gradient(ensemble) if index is None else "member"
    threat = Threat(source, index, num_draws=budget.num_draws)
    followed = Followed(gradient(ensemble, threat), budget.batch_size)
    rng = np.random.default_rng([budget.seed, 2])
    return apgd(followed, x, y, eps=eps, norm=budget.norm, num_steps=num_steps, rng=rng)


def _evaluated(
    ensemble: Ensemble,
    source: GradientSource,
    x: Images,
    y: Labels,
    budget: Budget,
    index: int | None = None,
) -> Floats:
    threat = Threat(source, index, num_draws=budget.num_draws)
    return Followed(gradient(ensemble, threat), budget.batch_size)(x, y).grads


def _is_zero(grads: Floats) -> Answers:
    return np.all(grads.reshape(len(grads), -1) == 0, axis=1)


def _is_right(ensemble: Ensemble, x: Images, y: Labels, budget: Budget) -> Answers:
    return answers(ensemble, x, budget.batch_size)[1].argmax(axis=1) == y


def _range(x: Images, budget: Budget) -> float:
    """Return the distance of the black from the white image."""
    return 1.0 if budget.norm == "linf" else float(np.prod(x.shape[1:])) ** 0.5
