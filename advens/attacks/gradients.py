"""The gradients that attacks on an ensemble follow: `gradient(ensemble, threat)`."""

import dataclasses
import functools
from collections.abc import Callable

import keras
from keras import ops

from advens import backend
from advens.arrays import Tensor
from advens.attacks.losses import cross_entropies, mean_log_probs
from advens.attacks.threat import GradientLoss, LabelMode, Threat
from advens.checks import check_choices
from advens.models.ensemble import Ensemble, check_ensemble
from advens.models.variants import attacked_model


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The gradient of a mean of cross-entropies with respect to the images.

    `gradient(x, y)` maps images `(n, h, w, c)` float32 and labels `(n,)` or `(k, n)`
    int to the gradient, `(n, h, w, c)` float32, of the loss summed over the batch: the
    gradient of an image does not depend on its neighbours.

    Attributes:
        logits: maps images to the logits, `(k, n, num_classes)`, of the `k` classifiers
            over whose cross-entropies the mean is taken.
        labels: see `Threat`.
        loss: see `Threat`.
    """

    logits: Callable[[Tensor], Tensor]
    labels: LabelMode = "true"
    loss: GradientLoss = "exact"

    def __post_init__(self) -> None:
        check_choices(self, labels=LabelMode, loss=GradientLoss)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient at `x`, see above.

        With `labels="predicted"`, `y` must be what `start_labels` returned for the
        images before the attack.
        """
        x = ops.convert_to_tensor(x, "float32")
        return backend.input_gradient(lambda x: self._losses(x, y), x)

    def start_labels(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the labels for an attack that starts at `x`: given or predicted."""
        if self.labels == "predicted":
            return ops.argmax(self.logits(x), axis=-1)
        return y

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean of the classifiers' cross-entropies, `(n,)`."""
        logits = self.logits(x)
        if self.labels == "repredicted":
            y = ops.argmax(logits, axis=-1)
        else:
            y = ops.convert_to_tensor(y)
            per_image, per_classifier = tuple(logits.shape[1:-1]), logits.shape[:-1]
            if tuple(y.shape) not in (per_image, tuple(per_classifier)):
                raise ValueError(
                    f"`y` must be of shape {per_image}, one label per image, or "
                    f"{tuple(per_classifier)}, one per classifier and image. "
                    f"Received: shape {tuple(y.shape)}"
                )
            y = ops.broadcast_to(y, per_classifier)
        return ops.mean(cross_entropies(logits, y, self.loss), axis=0)


def gradient(ensemble: Ensemble, threat: Threat) -> Gradient:
    """Return the gradient of a threat to an ensemble.

    - `"member"`, Grad. 1 (Section 3): of J(theta_i, x, y).
    - `"mean_member"`, Grad. 2 (Section 3): the mean over i of these gradients.
    - `"ensemble"`: of -log(mean over i of p_i(y | x)). It weighs the gradient of member
      i with p_i / sum(p), and neither overflows nor clips. Its logits are logarithms of
      probabilities, so that `loss="logits"` is exact too.

    For an ensemble of one the three coincide.

    Args:
        ensemble: an ensemble of `m` members.
        threat: which gradient.

    Raises:
        ValueError: if `ensemble` is not an `Ensemble`, the threat's index is not a
            member's, or a member cannot compute in bfloat16 as the threat asks.
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
    models = [_attacked(ensemble, index, threat) for index in indices]

    def member_logits(x: Tensor) -> Tensor:
        logits = [model(x) for model in models]
        return ops.stack([ops.cast(tensor, "float32") for tensor in logits])

    def ensemble_logits(x: Tensor) -> Tensor:
        return mean_log_probs(member_logits(x))[None]

    logits = ensemble_logits if threat.gradient == "ensemble" else member_logits
    return Gradient(logits, threat.labels, threat.loss)


def _attacked(
    ensemble: Ensemble, index: int, threat: Threat
) -> Callable[[Tensor], Tensor]:
    """Return a member up to its logits, with the fastest gradient there is."""
    model: keras.Model = ensemble.logits_models[index]
    bfloat16 = threat.compute == "bfloat16"
    make = functools.partial(attacked_model, model, bfloat16=bfloat16)
    return ensemble.programs.get(("attacked", index, bfloat16), make)
