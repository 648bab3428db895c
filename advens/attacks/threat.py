"""An attack and the gradient that it follows, as data."""

import dataclasses
from typing import Literal

from advens.checks import check_at_least, check_choices, check_count

GradientSource = Literal[
    "member", "mean_member", "ensemble", "mean_logit", "normalized", "adaptive"
]
Objective = Literal["cross_entropy", "dlr", "targeted_dlr"]
LabelMode = Literal["true", "predicted", "repredicted"]
GradientLoss = Literal["exact", "logits", "clipped"]
Compute = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Attack:
    """The settings of an attack: FGSM if `num_steps` is 1, else BIM.

    Attributes:
        name: what tables call it.
        eps: largest change of a pixel, in units of the [0, 1] range, >= 0.
        step_size: change of a pixel in one step (the paper's alpha), >= 0.
        num_steps: number of steps (the paper's n), >= 1.
        box: whether images are clipped to [0, 1] after each step (docs/protocol.md,
            point 10).
    """

    name: str
    eps: float
    step_size: float
    num_steps: int
    box: bool = False

    def __post_init__(self) -> None:
        check_at_least("eps", self.eps, 0)
        check_at_least("step_size", self.step_size, 0)
        check_count("num_steps", self.num_steps)


@dataclasses.dataclass(frozen=True)
class Threat:
    """Which gradient an attacker follows.

    Attributes:
        gradient: `"member"`, the paper's Grad. 1: the gradient of one member's loss;
            `"mean_member"`, its Grad. 2: the mean of the members' gradients;
            `"ensemble"`: the gradient of the loss of the ensemble's own vote, such as
            -log of the mean probability; a majority has none. `"mean_logit"`: of the
            mean of the logits, however they vote; `"normalized"`: the mean of the
            members' gradients, each divided by its L1 norm; `"adaptive"`: see
            `attacks.losses.soft_vote`: the members that are about to change their
            answer count most.
        index: which member, for `"member"` only.
        labels: the labels in the loss (docs/protocol.md, point 11). `"true"`: the given
            ones; `"predicted"`: what each attacked classifier predicts for the images
            as they are before the attack; `"repredicted"`: what it predicts at each
            step.
        loss: how the cross-entropy is computed (docs/protocol.md, point 12).
            `"exact"`: from the logits, with a gradient that keeps the label's own term
            and never underflows, see `attacks.gradients.Gradient`. `"logits"`: from the
            logits by Keras. In float32 its gradient, softmax - onehot, loses the
            label's own term where 1 - p(y | x) < 6e-8; what is left points elsewhere or
            nowhere, which looks like robustness. `"clipped"`: from probabilities
            clipped at 1e-7, as in Keras of 2017. In members that compute in float16
            both underflow earlier.
        compute: `"float32"`: each layer of the attacked members computes as its own
            dtype policy says; `"bfloat16"`: the gradient is computed in bfloat16 from
            the same weights. Attacked images are always judged by the members as they
            are.
        num_draws: how often each member is evaluated for a gradient, >= 1: more than
            once for members that are random in inference too, such as those with a
            dropout that is always on (Athalye et al. 2018, arXiv:1802.00420). Each
            draw counts as a member of its own: the mean of the members' gradients, or
            of their probabilities, is over the draws too. A predicted label is that of
            a classifier's mean probability over its draws. Time and memory grow with
            it.
        objective: the loss itself: the cross-entropy, or the difference of logits
            ratio, see `attacks.losses.dlr`, whose targeted form needs the classes that
            images shall be taken for.
    """

    gradient: GradientSource
    index: int | None = None
    labels: LabelMode = "true"
    loss: GradientLoss = "exact"
    compute: Compute = "float32"
    num_draws: int = 1
    objective: Objective = "cross_entropy"

    def __post_init__(self) -> None:
        check_choices(
            self,
            objective=Objective,
            gradient=GradientSource,
            labels=LabelMode,
            loss=GradientLoss,
            compute=Compute,
        )
        check_count("num_draws", self.num_draws)
        if (self.index is not None) != (self.gradient == "member"):
            raise ValueError(
                "`index` must be given for gradient='member', and for no other. "
                f"Received: gradient={self.gradient!r}, index={self.index}"
            )
        others = self.gradient in ("mean_logit", "normalized", "adaptive")
        if self.loss != "exact" and (others or self.objective != "cross_entropy"):
            raise ValueError(
                "`loss` must be 'exact' for other gradients than the paper's and for "
                f"other objectives than the cross-entropy. Received: {self}"
            )
