"""FGSM and BIM, as functions of a gradient, never of a model."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from advens import backend
from advens.arrays import Tensor
from advens.attacks.compiled import CompiledGradient
from advens.attacks.gradients import Gradient
from advens.attacks.threat import Attack
from advens.checks import check_count

GradientFunction = Callable[[Tensor, Tensor], Tensor]


class AdversarialExamples(NamedTuple):
    """What an attack returns.

    Attributes:
        x_adv: `(n, h, w, c)` float32, the adversarial images.
        zero_gradient: `(n,)` bool, whether the gradient that was followed was exactly
            zero at any step, so that the image did not move. With `loss="exact"` this
            is never due to certainty alone: no member's logits change with the image,
            or the members' gradients cancel. With the other losses it may be rounding.
            If the image is still classified correctly, this is a numerical accident,
            not robustness.
    """

    x_adv: Tensor
    zero_gradient: Tensor


def fgsm(
    gradient: GradientFunction,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    box: bool = False,
) -> AdversarialExamples:
    """The fast gradient sign method: x + eps sign(gradient(x, y)).

    Source: Section 2; Goodfellow et al. 2014, arXiv:1412.6572.

    Args:
        gradient: a function of `(x, y)`; see `advens.attacks.gradients`.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        eps: change of every pixel, in units of the [0, 1] range, >= 0.
        box: whether to clip the result to [0, 1].
    """
    return craft(gradient, x, y, [Attack("FGSM", eps, eps, 1, box)])[0]


def bim(
    gradient: GradientFunction,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    step_size: float,
    num_steps: int,
    box: bool = False,
) -> AdversarialExamples:
    """The basic iterative method: steps along the sign, clipped to the eps-ball.

    Source: Section 2; Kurakin et al. 2016, arXiv:1607.02533.

    Args:
        gradient: a function of `(x, y)`; see `advens.attacks.gradients`.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        eps: largest change of a pixel, in units of the [0, 1] range, >= 0.
        step_size: change of a pixel in one step, >= 0.
        num_steps: number of steps, >= 1.
        box: whether to clip to [0, 1] after each step.
    """
    return craft(gradient, x, y, [Attack("BIM", eps, step_size, num_steps, box)])[0]


def craft(
    gradient: GradientFunction, x: Tensor, y: Tensor, attacks: Sequence[Attack]
) -> list[AdversarialExamples]:
    """Run attacks that follow the same gradient; they share the gradient at `x`.

    Attacks that differ only in their number of steps cost no more than the longest:
    the others are found on its way. The steps are a loop in Python, as a loop within a
    program is slower on a CPU, and eps, step size and number of steps should be no
    constants of one.

    Args:
        gradient: a function of `(x, y)`; see `advens.attacks.gradients`. It is fastest
            as a `CompiledGradient`. With `labels="predicted"`, labels are predicted at
            `x`, and `y` is ignored.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        attacks: their settings.

    Returns:
        The adversarial images of each attack.

    Raises:
        ValueError: if images and labels do not belong together or are out of range, or
            if the gradient of an image is NaN. In a program of the user's own, values
            cannot be checked.
    """
    x, y = _start(gradient, x, y, boxed=any(attack.box for attack in attacks))
    if not attacks:
        return []
    first = _gradient(gradient, x, y, f"step 1 of {attacks[0].name}")
    groups: dict[Attack, list[Attack]] = {}
    for attack in attacks:
        groups.setdefault(_without_end(attack), []).append(attack)
    examples: dict[Attack, AdversarialExamples] = {}
    for group in groups.values():
        ends = [attack.num_steps for attack in group]
        states = _iterates(gradient, x, y, first, group[0], ends)
        examples.update(zip(group, states, strict=True))
    return [examples[attack] for attack in attacks]


def iterates(
    gradient: GradientFunction,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    *,
    ends: Sequence[int],
) -> list[AdversarialExamples]:
    """Return what BIM makes of `x` after each of several numbers of steps.

    Args:
        gradient: as for `craft`.
        x: as for `craft`.
        y: as for `craft`.
        attack: the settings of the steps; its own `num_steps` does not count.
        ends: the numbers of steps, each >= 1.
    """
    for end in ends:
        check_count("ends", end)
    x, y = _start(gradient, x, y, boxed=attack.box)
    first = _gradient(gradient, x, y, f"step 1 of {attack.name}")
    return _iterates(gradient, x, y, first, attack, ends)


def _start(
    gradient: GradientFunction, x: Tensor, y: Tensor, *, boxed: bool
) -> tuple[Tensor, Tensor]:
    """Return the images from which an attack starts and its labels, both checked."""
    x = _checked_images(x, boxed)
    if isinstance(gradient, Gradient | CompiledGradient):
        y = _checked_labels(y, x.shape[0])
        if isinstance(gradient, CompiledGradient):
            gradient.check(x, y)
        y = gradient.start_labels(x, y)
    return x, y


def _iterates(
    gradient: GradientFunction,
    x: Tensor,
    y: Tensor,
    grad: Tensor,
    attack: Attack,
    ends: Sequence[int],
) -> list[AdversarialExamples]:
    """Do what `iterates` does, given the gradient at `x`."""
    eps, step_size = float(attack.eps), float(attack.step_size)
    low, high = x - eps, x + eps
    x_adv, zero_gradient = x, _is_zero(grad)
    states = {}
    for step in range(1, max(ends, default=0) + 1):
        if step > 1:
            grad = _gradient(gradient, x_adv, y, f"step {step} of {attack.name}")
            zero_gradient = ops.logical_or(zero_gradient, _is_zero(grad))
        x_adv = ops.clip(x_adv + step_size * ops.sign(grad), low, high)
        if attack.box:
            x_adv = ops.clip(x_adv, 0.0, 1.0)
        if step in ends:
            states[step] = AdversarialExamples(x_adv, zero_gradient)
    return [states[end] for end in ends]


def _gradient(gradient: GradientFunction, x: Tensor, y: Tensor, step: str) -> Tensor:
    """Return the gradient at `x`, after checking that it has no NaN."""
    grad = gradient(x, y)
    is_nan = ops.any(ops.isnan(grad), axis=_pixel_axes(grad))
    # In a program of the user's own, values are not known.
    if backend.is_known(is_nan) and ops.any(is_nan):
        of = under = ""
        if isinstance(gradient, Gradient | CompiledGradient):
            of = f" of members{gradient.nan_members(x, y)}"
        if isinstance(gradient, CompiledGradient):
            under = f" under {gradient.threat}"
        images = ops.convert_to_numpy(x)[ops.convert_to_numpy(is_nan)]
        raise ValueError(
            f"The gradient{of} must be numbers. Received: NaN for "
            f"{len(np.unique(images, axis=0))} different image(s), at {step}{under}"
        )
    return grad


def _without_end(attack: Attack) -> Attack:
    """Return an attack without its name and its number of steps."""
    return dataclasses.replace(attack, name="", num_steps=1)


def _is_zero(grad: Tensor) -> Tensor:
    return ops.all(ops.equal(grad, 0.0), axis=_pixel_axes(grad))


def _pixel_axes(grad: Tensor) -> tuple[int, ...]:
    return tuple(range(1, grad.ndim))


def _checked_images(x: Tensor, boxed: bool) -> Tensor:
    """Return the images as float32, after checking what is known of them."""
    if keras.backend.is_int_dtype(getattr(x, "dtype", "float32")):
        raise ValueError(
            f"`x` must be images as floats in [0, 1]. Received: dtype {x.dtype}"
        )
    x = ops.convert_to_tensor(x, "float32")
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(
            "`x` must be at least one image, `(n, h, w, c)`, or another input of at "
            f"least two axes. Received: shape {tuple(x.shape)}"
        )
    if boxed and backend.is_known(x):
        low, high = float(ops.min(x)), float(ops.max(x))
        if not (low >= 0 and high <= 1):
            raise ValueError(
                "`x` must be images in [0, 1], to which box=True clips. Received: "
                f"{low} to {high}"
            )
    return x


def _checked_labels(y: Tensor, num_images: int | None) -> Tensor:
    y = ops.convert_to_tensor(y)
    shape = tuple(y.shape)
    if not keras.backend.is_int_dtype(y.dtype) or shape[1:] not in {(), (1,)}:
        raise ValueError(
            "`y` must be `(n,)` integer labels, not one-hot vectors. Received: "
            f"{keras.backend.standardize_dtype(y.dtype)} of shape {shape}"
        )
    if None not in (num_images, shape[0]) and shape[0] != num_images:
        raise ValueError(
            f"`y` must be one label per image. Received: {shape[0]} labels for "
            f"{num_images} images"
        )
    return ops.reshape(y, (-1,))
