"""FGSM and BIM, as functions of a gradient, never of a model."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

from advens.gradients import Gradient

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
    if not (num_steps >= 1 and num_steps == int(num_steps)):
        raise ValueError(
            f"`num_steps` must be an integer >= 1. Received: num_steps={num_steps}"
        )


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

    Args:
        gradient: a function of `(x, y)`; see `advens.gradients`. One with
            `labels="predicted"` is given its own labels at `x` in place of `y`.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        attacks: their settings.

    Returns:
        The adversarial images of each attack.
    """
    x = ops.convert_to_tensor(x, "float32")
    if isinstance(gradient, Gradient):
        y = gradient.start_labels(x, y)
    first = gradient(x, y)
    return [_iterate(gradient, x, y, first, attack) for attack in attacks]


def _iterate(
    gradient: GradientFunction, x: Any, y: Any, first: Any, attack: Attack
) -> Adversarial:
    low, high = x - attack.eps, x + attack.eps

    def move(x_adv: Any, grad: Any) -> Any:
        x_adv = ops.clip(x_adv + attack.step_size * ops.sign(grad), low, high)
        return ops.clip(x_adv, 0.0, 1.0) if attack.box else x_adv

    def step(_: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        x_adv, zero_gradient = state
        grad = gradient(x_adv, y)
        return move(x_adv, grad), ops.logical_or(zero_gradient, _is_zero(grad))

    state = (move(x, first), _is_zero(first))
    if attack.num_steps > 1:
        state = ops.fori_loop(1, attack.num_steps, step, state)
    return Adversarial(*state)


def _is_zero(grad: Any) -> Any:
    return ops.all(ops.equal(grad, 0.0), axis=tuple(range(1, grad.ndim)))
