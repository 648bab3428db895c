"""The loss that an attack makes larger, as a function of the members' logits."""

import dataclasses
import math

from keras import ops

from advens import backend
from advens.arrays import Tensor
from advens.attacks.losses import (
    cross_entropies,
    dlr,
    exact_cross_entropies,
    logit_gradients,
    soft_vote,
)
from advens.attacks.threat import GradientSource, Objective
from advens.models.votes import Votes, log_vote


@dataclasses.dataclass(frozen=True)
class LogitLoss:
    """A loss of logits `(r, k, n, num_classes)`, `r` draws of `k` classifiers.

    Labels are `(r, k, n)` int, targets `(n,)` int, for a targeted objective only.

    Attributes:
        source: `gradient` of `Threat`.
        objective: see `Threat`.
        votes: how the members vote, for the source `"ensemble"`.
    """

    source: GradientSource
    objective: Objective = "cross_entropy"
    votes: Votes = "mean_probability"

    @property
    def is_of_one(self) -> bool:
        """Whether the members are one classifier, with one loss; `k` is 1 then."""
        return self.source in ("ensemble", "mean_logit", "adaptive")

    def by_classifier(self, logits: Tensor, num_draws: int) -> Tensor:
        """Return logits `(r * k, n, num_classes)` as `(r, k, n, num_classes)`.

        All members' draws are draws of one classifier if the members are one.
        """
        k = 1 if self.is_of_one else logits.shape[0] // num_draws
        return ops.reshape(logits, (logits.shape[0] // k, k, *logits.shape[1:]))

    def combined(self, logits: Tensor) -> Tensor:
        """Return the logits of the classifiers whose losses are averaged.

        Returns:
            `(r, k, n, num_classes)`, where `r` is 1 if the members are one classifier.
        """
        if not self.is_of_one:
            return logits
        if self.source == "mean_logit":
            return ops.mean(logits, axis=0, keepdims=True)
        if self.source == "adaptive":
            return soft_vote(logits)[None]
        return log_vote(logits, self.votes)[None]

    def losses(
        self, logits: Tensor, y: Tensor, targets: Tensor | None = None
    ) -> Tensor:
        """Return the exact loss of each image, `(n,)`."""
        logits = self.combined(logits)
        y = y[: logits.shape[0]]
        if self.objective == "cross_entropy":
            losses = exact_cross_entropies(logits, y)
        elif self.objective == "dlr":
            losses = dlr(logits, y)
        elif targets is None:
            raise ValueError(
                "objective='targeted_dlr' needs the classes that it aims at"
            )
        else:
            losses = dlr(logits, y, ops.broadcast_to(targets, y.shape))
        return ops.mean(losses, axis=(0, 1))

    def gradients(
        self, logits: Tensor, y: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the exact gradient of the loss with respect to the logits.

        Returns:
            Its directions, `(r, k, n, num_classes)`, of which the largest entry is 1,
            and the logarithms of their sizes, `(r, k, n)`.
        """
        count = logits.shape[0] * logits.shape[1]
        if self.objective != "cross_entropy" or self.source == "adaptive":
            # These losses do not saturate, nor do their gradients.
            grads = backend.input_gradient(lambda z: self.losses(z, y, targets), logits)
            sizes = ops.max(ops.abs(grads), axis=-1)
            return grads / ops.where(sizes > 0, sizes, 1.0)[..., None], ops.log(sizes)
        if self.source == "ensemble" and self.votes == "mean_probability":
            directions, log_sizes = logit_gradients(logits, y)
            # The gradient of -log(mean p) weighs that of -log(p_i) with p_i / sum(p).
            log_probs = -cross_entropies(logits, y)
            return directions, log_sizes + ops.log_softmax(log_probs, axis=0)
        combined = self.combined(logits)
        directions, log_sizes = logit_gradients(combined, y[: combined.shape[0]])
        return (
            ops.broadcast_to(directions, logits.shape),
            ops.broadcast_to(log_sizes - math.log(count), logits.shape[:-1]),
        )
