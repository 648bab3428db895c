"""The gradients that attacks on an ensemble follow."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import keras
from keras import ops

from advens import backend
from advens.arrays import Tensor
from advens.attacks.logit_loss import LogitLoss
from advens.attacks.losses import cross_entropies, normalized, weighted_sum
from advens.attacks.threat import (
    GradientLoss,
    GradientSource,
    LabelMode,
    Objective,
    Threat,
)
from advens.checks import check_choices, check_count, check_labels
from advens.models.ensemble import Ensemble, check_ensemble
from advens.models.variants import attacked_model
from advens.models.votes import Votes, log_vote, mean_log_probs


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The gradient of the members' loss with respect to the images.

    `gradient(x, y)` maps images `(n, h, w, c)` float32 and labels `(n,)` or `(k, n)`
    int to the gradient, `(n, h, w, c)` float32, of the loss summed over the batch: the
    gradient of an image does not depend on its neighbours. The members are `k`
    classifiers, and the loss is the mean of theirs; or, for the sources `"ensemble"`,
    `"mean_logit"` and `"adaptive"`, they are one.

    With `loss="exact"` the gradient is right however certain the members are, in
    float16 too: each member is differentiated from a gradient of its logits whose
    largest entry is 1, and the results are summed in float32, with weights. Where the
    sum would underflow, its direction is right, but not its size: see `weighted_sum`.
    So it is exactly zero only where no member's logits change with the image (behind
    ReLUs that are all off), or where the members' gradients cancel.

    Attributes:
        members: functions from images to logits, `(n, num_classes)` float32, by their
            indices in the ensemble.
        source: `gradient` of `Threat`.
        labels: see `Threat`.
        loss: see `Threat`.
        num_draws: see `Threat`.
        objective: see `Threat`.
        votes: how the members vote, for `source="ensemble"`.
    """

    members: Mapping[int, Callable[[Tensor], Tensor]]
    source: GradientSource = "mean_member"
    labels: LabelMode = "true"
    loss: GradientLoss = "exact"
    num_draws: int = 1
    objective: Objective = "cross_entropy"
    votes: Votes = "mean_probability"

    def __post_init__(self) -> None:
        check_choices(self, labels=LabelMode, loss=GradientLoss)
        check_count("num_draws", self.num_draws)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient at `x`, see above.

        With `labels="predicted"`, `y` must be what `start_labels` returned for the
        images before the attack.
        """
        x = ops.convert_to_tensor(x, "float32")
        if self.loss != "exact":
            return backend.input_gradient(lambda x: self._losses(x, y), x)
        return weighted_sum(*self._summands(x, y))

    def start_labels(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the labels for an attack that starts at `x`: given or predicted."""
        return self._predictions(self._logits(x)) if self.labels == "predicted" else y

    def nan_members(self, x: Tensor, y: Tensor) -> list[int]:
        """Return the indices of the members whose own gradient at `x` is not finite.

        If `gradient(x, y)` has a NaN, it is from one of them, or infinities of two of
        them have met.
        """
        grads, _ = self._summands(ops.convert_to_tensor(x, "float32"), y)
        finite = ops.convert_to_numpy(ops.isfinite(grads))
        finite = finite.reshape(self.num_draws, len(self.members), -1).all(axis=(0, 2))
        return [index for index, ok in zip(self.members, finite, strict=True) if not ok]

    @property
    def _loss(self) -> LogitLoss:
        return LogitLoss(self.source, self.objective, self.votes)

    @property
    def networks(self) -> list[Callable[[Tensor], Tensor]]:
        """The members once for each draw."""
        return list(self.members.values()) * self.num_draws

    def _logits(self, x: Tensor) -> Tensor:
        logits = ops.stack([network(x) for network in self.networks])
        return self._loss.by_classifier(logits, self.num_draws)

    def _predictions(self, logits: Tensor) -> Tensor:
        """Return the answers of the classifiers over their draws, `(k, n)`."""
        if self._loss.is_of_one:
            logits = log_vote(logits, self.votes)
        else:
            logits = mean_log_probs(logits) if logits.shape[0] > 1 else logits[0]
        return ops.argmax(logits, axis=-1)

    def _labels(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the labels in the loss, `(r, k, n)`: given or predicted again."""
        if self.labels == "repredicted":
            y = self._predictions(logits)
        y = ops.convert_to_tensor(y)
        per_image, per_classifier = tuple(logits.shape[2:-1]), tuple(logits.shape[1:-1])
        if tuple(y.shape) not in (per_image, per_classifier):
            raise ValueError(
                f"`y` must be of shape {per_image}, one label per image, or "
                f"{per_classifier}, one per classifier and image. "
                f"Received: shape {tuple(y.shape)}"
            )
        if backend.is_known(y):
            check_labels(ops.convert_to_numpy(y), logits.shape[-1])
        return ops.broadcast_to(y, logits.shape[:-1])

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each image as Keras computes it, `(n,)`."""
        logits = self._logits(x)
        y = self._labels(logits, y)
        logits = self._loss.combined(logits)
        y = y[: logits.shape[0]]
        losses = cross_entropies(logits, y, clipped=self.loss == "clipped")
        return ops.mean(losses, axis=(0, 1))

    def _summands(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the exact gradient is the weighted sum of.

        Returns:
            The networks' own gradients, `(r * k, n, h, w, c)`, each from a gradient of
            logits whose largest entry is 1, and the logarithms of their weights,
            `(r * k, n)`.
        """
        stacked, product = backend.vjps(self.networks, x)
        logits = self._loss.by_classifier(stacked, self.num_draws)
        directions, log_weights = self._loss.gradients(logits, self._labels(logits, y))
        grads = product(ops.reshape(directions, stacked.shape))
        log_weights = ops.reshape(log_weights, stacked.shape[:-1])
        if self.source == "normalized":
            return normalized(grads), ops.zeros_like(log_weights)
        return grads, log_weights


def uncompiled_gradient(ensemble: Ensemble, threat: Threat) -> Gradient:
    """Return the gradient of a threat to an ensemble, see `compiled.gradient`.

    - `"member"`, Grad. 1 (Section 3): of J(theta_i, x, y).
    - `"mean_member"`, Grad. 2 (Section 3): the mean over i of these gradients.
    - `"ensemble"`: of -log(mean over i of p_i(y | x)). It weighs the gradient of member
      i with p_i / sum(p), and neither overflows nor clips. Its logits are logarithms of
      probabilities, so that `loss="logits"` loses little, too.

    For an ensemble of one the three coincide. Draws count as members do: each mean is
    over the members and their draws (Athalye et al. 2018, arXiv:1802.00420), and with
    several draws Grad. 2 and the ensemble gradient differ for an ensemble of one, too.

    Arguments and errors are those of `compiled.gradient`.
    """
    check_ensemble(ensemble)
    size = len(ensemble)
    indices = range(size)
    if threat.index is not None:
        if not 0 <= threat.index < size:
            raise ValueError(
                f"`index` must be from 0 to {size - 1}. Received: index={threat.index}"
            )
        indices = range(threat.index, threat.index + 1)
    if threat.gradient == "ensemble" and ensemble.votes == "majority":
        raise ValueError(
            "`gradient` must not be 'ensemble' for an ensemble whose majority decides: "
            "that has no gradient. Use 'adaptive'"
        )
    return Gradient(
        {index: _attacked(ensemble, index, threat) for index in indices},
        source=threat.gradient,
        labels=threat.labels,
        loss=threat.loss,
        num_draws=threat.num_draws,
        objective=threat.objective,
        votes=ensemble.votes,
    )


def _attacked(
    ensemble: Ensemble, index: int, threat: Threat
) -> Callable[[Tensor], Tensor]:
    """Return a member up to its logits, with the fastest gradient there is."""
    model: keras.Model = ensemble.logits_models[index]
    bfloat16 = threat.compute == "bfloat16"
    make = functools.partial(attacked_model, model, bfloat16=bfloat16)
    network = ensemble.programs.get(("attacked", index, bfloat16), make)
    return lambda x: ops.cast(network(x), "float32")
