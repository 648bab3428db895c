"""Adversarial training (Section 4): a model to `fit`, around any Keras classifier."""

import dataclasses
from typing import Any, Literal

import keras
from keras import ops

from advens import paper
from advens.checks import check_choices
from advens.gradients import input_gradient, unrounded
from advens.logits import Outputs, logits_model

TrueOrPredicted = Literal["true", "predicted"]
ExactOrLogits = Literal["exact", "logits"]


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """The settings of adversarial training.

    Attributes:
        eps: size of the FGSM perturbation, in units of the [0, 1] range, >= 0
            (docs/protocol.md, point 19).
        rho: weight of the loss of the images as they are, in [0, 1].
        box: clip the perturbed images to [0, 1].
        labels: `"true"`, or `"predicted"`: perturb away from what the network predicts.
        loss: whose gradient the perturbation follows; see `gradients.Gradient`.
    """

    eps: float
    rho: float = paper.RHO  # Section 4
    box: bool = False
    labels: TrueOrPredicted = "true"  # docs/protocol.md, point 20
    loss: ExactOrLogits = "exact"

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"`eps` must be >= 0 and finite. Received: eps={self.eps}")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"`rho` must be in [0, 1]. Received: rho={self.rho}")
        check_choices(self, labels=TrueOrPredicted, loss=ExactOrLogits)


@keras.saving.register_keras_serializable("advens")
class AdversarialTraining(keras.Model):
    """A classifier whose `fit` trains it adversarially (Section 4).

    `J_AT = rho J(x, y) + (1 - rho) J(x + eps sign(grad_x J(x, y)), y)`, Goodfellow et
    al. 2014, arXiv:1412.6572, with J the loss that it is compiled with. At every batch
    the perturbation comes from the current weights, with dropout off; its gradient is
    that of the cross-entropy from logits. Both losses have dropout on. Images, gradient
    and perturbation are float32 whatever the precision of the network. With `rho=1` no
    perturbation is made: it is plain training, weight for weight.

    It calls, evaluates and predicts as `model` does, and shares its weights:
    `AdversarialTraining(model, eps=0.3)`, then `compile` and `fit`, to which images
    `(n, h, w, c)` as floats in [0, 1] are given.

    Args:
        model: the classifier.
        eps: see `Adversarial`.
        rho: see `Adversarial`.
        box: see `Adversarial`.
        labels: see `Adversarial`.
        loss: see `Adversarial`.
        outputs: what `model` returns if its last layer does not tell; see
            `logits.logits_model`.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        eps: float,
        rho: float = paper.RHO,
        box: bool = False,
        labels: TrueOrPredicted = "true",
        loss: ExactOrLogits = "exact",
        outputs: Outputs | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = Adversarial(eps, rho, box, labels, loss)
        self.model = model
        self._outputs = outputs
        # A bound method: a second model would be tracked, and saved, a second time.
        self._logits = logits_model(model, outputs).__call__
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Call the classifier."""
        return self.model(inputs, training=training)

    def perturbed(self, x: Any, y: Any) -> Any:
        """Return `x + eps sign(grad_x J(x, y))`, with dropout off.

        Args:
            x: `(n, h, w, c)` in [0, 1].
            y: `(n,)` or `(n, 1)` int, or `(n, num_classes)` probabilities.
        """
        if keras.backend.is_int_dtype(x.dtype):
            raise ValueError(
                "`x` must be images as floats in [0, 1], of which `eps` is a share. "
                f"Received: dtype {keras.backend.standardize_dtype(x.dtype)}"
            )
        x = ops.cast(x, "float32")
        grad = ops.sign(input_gradient(lambda x: self._cross_entropies(x, y), x))
        x_adv = x + self.settings.eps * grad
        if self.settings.box:
            x_adv = ops.clip(x_adv, 0.0, 1.0)
        return ops.stop_gradient(x_adv)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return J_AT in training, and J in evaluation."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        rho = self.settings.rho
        if not training or rho == 1:
            return loss
        x_adv = self.perturbed(x, y)
        adversarial_loss = super().compute_loss(
            x_adv, y, self(x_adv, training=True), sample_weight, training=training
        )
        return rho * loss + (1 - rho) * adversarial_loss

    def _cross_entropies(self, x: Any, y: Any) -> Any:
        logits = ops.cast(self._logits(x, training=False), "float32")
        if self.settings.loss == "exact":
            logits = unrounded(logits)
        if self.settings.labels == "predicted":
            y = ops.argmax(logits, axis=-1)
        elif y.shape == logits.shape and logits.shape[-1] > 1:
            return ops.categorical_crossentropy(y, logits, from_logits=True)
        y = ops.reshape(y, (-1,))
        return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the classifier's output shape."""
        return self.model.compute_output_shape(input_shape)

    def build(self, input_shape: tuple) -> None:
        """Do nothing: the classifier is built."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the classifier among them."""
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            **dataclasses.asdict(self.settings),
            "outputs": self._outputs,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict | None = None
    ) -> "AdversarialTraining":
        """Return what `get_config` described."""
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(**{**config, "model": model})
