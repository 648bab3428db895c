"""What strong attacks ask at each step: losses, gradients, answers, by one program."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

from keras import ops

from advens import backend
from advens.arrays import Tensor
from advens.attacks.logit_loss import LogitLoss
from advens.attacks.losses import normalized, weighted_sum
from advens.attacks.threat import GradientSource, Threat
from advens.models.votes import Votes, vote


class Evaluation(NamedTuple):
    """What an attack learns of images at each step.

    Attributes:
        losses: `(n,)` float32, the losses that it makes larger.
        grads: `(n, h, w, c)` float32, their gradients with respect to the images.
        right: `(n,)` bool, whether the ensemble classifies the images correctly. True
            where the gradient is that of some of its members only: they cannot tell.
    """

    losses: Tensor
    grads: Tensor
    right: Tensor


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Exact losses, their gradients and answers, for any of several losses.

    The losses differ in how they depend on the logits, which is little work. So one
    program computes all of them, and which one counts is an argument.

    Attributes:
        networks: functions from images to logits, `(n, num_classes)` float32: the
            members, once for each draw.
        losses: the losses.
        votes: how the members vote; None if they are not the whole ensemble.
        num_draws: see `Threat`.
    """

    networks: Sequence[Callable[[Tensor], Tensor]]
    losses: Sequence[LogitLoss]
    votes: Votes | None
    num_draws: int = 1

    def __call__(
        self, which: Tensor, x: Tensor, y: Tensor, targets: Tensor
    ) -> Evaluation:
        """Evaluate one of the losses.

        Args:
            which: `()` int32, the index of the loss.
            x: `(n, h, w, c)` float32.
            y: `(n,)` int, the true labels.
            targets: `(n,)` int classes, for a targeted objective.
        """
        logits, product = backend.vjps(self.networks, x)
        branches = [functools.partial(self._upstream, loss) for loss in self.losses]
        if len(branches) == 1:
            losses, directions, log_weights = branches[0](logits, y, targets)
        else:
            losses, directions, log_weights = ops.switch(
                which, branches, logits, y, targets
            )
        grads = product(directions)
        is_normalized = [loss.source == "normalized" for loss in self.losses]
        if any(is_normalized):
            grads = ops.cond(
                ops.take(ops.convert_to_tensor(is_normalized), which),
                lambda: normalized(grads),
                lambda: grads,
            )
        right = ops.ones_like(losses, dtype="bool")
        if self.votes:
            answers = ops.argmax(vote(logits, self.votes), axis=-1)
            right = ops.equal(ops.cast(answers, y.dtype), y)
        return Evaluation(losses, weighted_sum(grads, log_weights), right)

    def _upstream(
        self, loss: LogitLoss, logits: Tensor, y: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses, and their gradients with respect to the logits.

        Returns:
            The losses, `(n,)`; the gradients' directions, `(r * k, n, num_classes)`, of
            which the largest entry is 1, and the logarithms of their sizes, `(r * k,
            n)`.
        """
        by_classifier = loss.by_classifier(logits, self.num_draws)
        y = ops.broadcast_to(y, by_classifier.shape[:-1])
        directions, log_sizes = loss.gradients(by_classifier, y, targets)
        log_sizes = ops.reshape(log_sizes, logits.shape[:-1])
        if loss.source == "normalized":
            log_sizes = ops.zeros_like(log_sizes)
        return (
            loss.losses(by_classifier, y, targets),
            ops.reshape(directions, logits.shape),
            log_sizes,
        )


def losses_like(threat: Threat, votes: Votes) -> list[LogitLoss]:
    """Return the losses that share a program with that of a threat, its own included.

    These are the cross-entropies of an ensemble as a whole. Each further objective
    would make the program take longer to compile than it saves.
    """
    own = LogitLoss(threat.gradient, threat.objective, votes)
    if threat.gradient == "member" or threat.objective != "cross_entropy":
        return [own]
    sources = [s for s in get_args(GradientSource) if s != "member"]
    if votes == "majority":
        sources.remove("ensemble")
    return [LogitLoss(source, "cross_entropy", votes) for source in sources]
