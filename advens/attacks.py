"""FGSM and BIM, as functions of a gradient, never of a model."""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from advens import paper
from advens.gradients import Gradient, repeat

GradientFunction = Callable[[Any, Any], Any]


class Adversarial(NamedTuple):
    """What an attack returns.

    Attributes:
        x_adv: `(n, h, w, c)` float32, the adversarial images.
        zero_gradient: `(n,)` bool, whether the image's gradient was exactly zero at any
            step. Such an image did not move at that step: if it is still classified
            correctly, that is a numerical accident and no robustness.
    """

    x_adv: Any
    zero_gradient: Any


@dataclasses.dataclass(frozen=True)
class Attack:
    """The settings of an attack: FGSM if `num_steps` is 1, else BIM.

    Attributes:
        name: what tables call it.
        eps: largest change of a pixel, in units of the [0, 1] range.
        step_size: change of a pixel in one step (the paper's alpha).
        num_steps: number of steps (the paper's n).
        box: clip to [0, 1] after each step (docs/protocol.md, point 10).
    """

    name: str
    eps: float
    step_size: float
    num_steps: int
    box: bool = False

    def __post_init__(self) -> None:
        check(self.eps, self.step_size, self.num_steps)


def check(eps: float, step_size: float, num_steps: int) -> None:
    """Raise a `ValueError` if a setting of an attack is out of range."""
    if not eps >= 0:
        raise ValueError(f"`eps` must be >= 0. Received: eps={eps}")
    if not step_size >= 0:
        raise ValueError(f"`step_size` must be >= 0. Received: step_size={step_size}")
    try:
        whole = operator.index(num_steps)
    except TypeError:
        whole = 0
    if whole < 1:
        raise ValueError(
            f"`num_steps` must be an integer >= 1. Received: num_steps={num_steps}"
        )


def paper_attacks(dataset: str, *, box: bool = False, **changes: Any) -> list[Attack]:
    """Return the paper's FGSM and BIM for a data set.

    Args:
        dataset: its name.
        box: see `Attack`.
        changes: `fgsm_eps`, `bim_eps`, `bim_step_size`, `bim_num_steps`, in place of
            the paper's; None leaves it.
    """
    settings: dict[str, dict[str, Any]] = {
        name: dict(found) for name, found in paper.ATTACKS[dataset].items()
    }
    for key, value in changes.items():
        attack, name = key.split("_", 1)
        if value is not None:
            settings[attack.upper()][name] = value
    settings["FGSM"]["step_size"] = settings["FGSM"]["eps"]
    return [Attack(name, box=box, **found) for name, found in settings.items()]


def fgsm(
    gradient: GradientFunction, x: Any, y: Any, *, eps: float, box: bool = False
) -> Adversarial:
    """The fast gradient sign method: x + eps sign(gradient(x, y)).

    Source: Section 2; Goodfellow et al. 2014, arXiv:1412.6572. It is `bim` with one
    step of size `eps`.

    Args:
        gradient: a function of `(x, y)`; see `advens.gradients`.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        eps: change of every pixel, in units of the [0, 1] range, >= 0.
        box: clip the result to [0, 1].
    """
    return craft(gradient, x, y, [Attack("FGSM", eps, eps, 1, box)])[0]


def bim(
    gradient: GradientFunction,
    x: Any,
    y: Any,
    *,
    eps: float,
    step_size: float,
    num_steps: int,
    box: bool = False,
) -> Adversarial:
    """The basic iterative method: steps along the sign, clipped to the eps-ball.

    Source: Section 2; Kurakin et al. 2016, arXiv:1607.02533.

    Args:
        gradient: a function of `(x, y)`; see `advens.gradients`.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        eps: largest change of a pixel, in units of the [0, 1] range, >= 0.
        step_size: change of a pixel in one step, >= 0.
        num_steps: number of steps, >= 1.
        box: clip to [0, 1] after each step.
    """
    return craft(gradient, x, y, [Attack("BIM", eps, step_size, num_steps, box)])[0]


def craft(
    gradient: GradientFunction, x: Any, y: Any, attacks: Sequence[Attack]
) -> list[Adversarial]:
    """Run attacks that share a gradient, and with it the gradient at `x` itself.

    Attacks that differ in their number of steps alone cost no more than the longest of
    them: what the shorter ones make of `x` lies on its way.

    Args:
        gradient: a function of `(x, y)`; see `advens.gradients`. One with
            `labels="predicted"` is given its own labels at `x` in place of `y`.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        attacks: their settings.

    Returns:
        The adversarial images of each attack.
    """
    if keras.backend.is_int_dtype(getattr(x, "dtype", "float32")):
        raise ValueError(
            f"`x` must be images as floats in [0, 1]. Received: dtype {x.dtype}"
        )
    concrete = isinstance(x, np.ndarray) and x.size > 0
    boxed = any(attack.box for attack in attacks)
    if concrete and boxed and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            "`x` must be images in [0, 1], to which box=True clips. Received: "
            f"{x.min()} to {x.max()}"
        )
    x = ops.convert_to_tensor(x, "float32")
    if isinstance(gradient, Gradient):
        y = gradient.start_labels(x, _labels(y))
    first = gradient(x, y)
    stops: dict[Attack, list[int]] = {}
    for attack in attacks:
        stops.setdefault(_walk(attack), []).append(attack.num_steps)
    found = {
        walk: _iterates(gradient, x, y, first, walk, sorted(set(num_steps)))
        for walk, num_steps in stops.items()
    }
    return [found[_walk(attack)][attack.num_steps] for attack in attacks]


def _labels(y: Any) -> Any:
    y = ops.convert_to_tensor(y)
    shape = tuple(y.shape)
    if not keras.backend.is_int_dtype(y.dtype) or shape[1:] not in {(), (1,)}:
        raise ValueError(
            "`y` must be `(n,)` integer labels, no one-hot vectors. Received: "
            f"{keras.backend.standardize_dtype(y.dtype)} of shape {shape}"
        )
    return ops.reshape(y, (-1,))


def _walk(attack: Attack) -> Attack:
    """Return the attack but for its name and where it stops."""
    return dataclasses.replace(attack, name="", num_steps=1)


def _iterates(
    gradient: GradientFunction,
    x: Any,
    y: Any,
    first: Any,
    attack: Attack,
    num_steps: Sequence[int],
) -> dict[int, Adversarial]:
    """Return the iterates after the given numbers of steps, which rise."""
    low, high = x - attack.eps, x + attack.eps
    *earlier, last = num_steps

    def move(x_adv: Any, grad: Any) -> Any:
        x_adv = ops.clip(x_adv + attack.step_size * ops.sign(grad), low, high)
        return ops.clip(x_adv, 0.0, 1.0) if attack.box else x_adv

    # On a CPU a loop that writes to TensorFlow's arrays, as `ops.scan` does, took a
    # quarter more time.
    def keep(kept: Adversarial, now: Adversarial, done: Any) -> Adversarial:
        here = ops.equal(ops.convert_to_tensor(earlier, "int32"), done)
        return Adversarial(
            *(
                ops.where(ops.reshape(here, (len(earlier),) + (1,) * b.ndim), b, a)
                for a, b in zip(kept, now, strict=True)
            )
        )

    def step(
        done: Any, state: tuple[Adversarial, Adversarial]
    ) -> tuple[Adversarial, Adversarial]:
        (x_adv, zero_gradient), kept = state
        grad = gradient(x_adv, y)
        zero_gradient = ops.logical_or(zero_gradient, _is_zero(grad))
        now = Adversarial(move(x_adv, grad), zero_gradient)
        return now, keep(kept, now, done + 1)

    now = Adversarial(move(x, first), _is_zero(first))
    kept = keep(now, now, 1)
    if last > 1:
        now, kept = repeat(1, last, step, (now, kept))
    iterates = [Adversarial(*(a[i] for a in kept)) for i in range(len(earlier))]
    return dict(zip(num_steps, (*iterates, now), strict=True))


def _is_zero(grad: Any) -> Any:
    return ops.all(ops.equal(grad, 0.0), axis=tuple(range(1, grad.ndim)))
