"""Adversarial training (Section 4): a model to `fit`, around any Keras classifier."""

import dataclasses
from typing import Any

import keras
from keras import ops

from advens import backend
from advens.arrays import Tensor
from advens.attacks.losses import unrounded
from advens.defenses.settings import (
    DEFAULT_RHO,
    AdversarialSettings,
    PerturbationLabels,
    PerturbationLoss,
)
from advens.models.logits import Outputs, logits_model


@keras.saving.register_keras_serializable("advens")
class AdversarialTraining(keras.Model):
    """A classifier whose `fit` trains it adversarially (Section 4).

    `J_AT = rho J(x, y) + (1 - rho) J(x + eps sign(grad_x J(x, y)), y)`, Goodfellow et
    al. 2014, arXiv:1412.6572, where J is the loss that the model is compiled with. For
    each batch the perturbation is computed from the current weights, with dropout off,
    along the gradient of the cross-entropy from logits. Both losses have dropout on.
    Images, gradient and perturbation are float32, whatever the precision of the
    network. With `rho=1` nothing is perturbed: this is plain training, weight for
    weight.

    It predicts and evaluates as `model` does and shares its weights. Use it as
    `AdversarialTraining(model, eps=0.3)`, then `compile` and `fit` on images
    `(n, h, w, c)`, floats in [0, 1].

    Args:
        model: the classifier.
        eps: see `AdversarialSettings`.
        rho: see `AdversarialSettings`.
        box: see `AdversarialSettings`.
        labels: see `AdversarialSettings`.
        loss: see `AdversarialSettings`.
        outputs: what `model` returns if its last layer does not show it; see
            `logits_model`.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        eps: float,
        rho: float = DEFAULT_RHO,
        box: bool = False,
        labels: PerturbationLabels = "true",
        loss: PerturbationLoss = "exact",
        outputs: Outputs | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = AdversarialSettings(eps, rho, box, labels, loss)
        self.model = model
        self._outputs = outputs
        # A bound method: a second model would be tracked, and saved, a second time.
        self._logits = logits_model(model, outputs).__call__
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Call the classifier."""
        return self.model(inputs, training=training)

    def perturbed(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `x + eps sign(grad_x J(x, y))`, with dropout off.

        Args:
            x: `(n, h, w, c)` in [0, 1].
            y: `(n,)` or `(n, 1)` int, or `(n, num_classes)` probabilities.
        """
        if keras.backend.is_int_dtype(x.dtype):
            raise ValueError(
                "`x` must be images as floats in [0, 1], to which `eps` refers. "
                f"Received: dtype {keras.backend.standardize_dtype(x.dtype)}"
            )
        x = ops.cast(x, "float32")
        grad = ops.sign(
            backend.input_gradient(lambda x: self._cross_entropies(x, y), x)
        )
        x_adv = x + self.settings.eps * grad
        if self.settings.box:
            x_adv = ops.clip(x_adv, 0.0, 1.0)
        return ops.stop_gradient(x_adv)

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        y_pred: Tensor | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
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

    def _cross_entropies(self, x: Tensor, y: Tensor) -> Tensor:
        logits = ops.cast(self._logits(x, training=False), "float32")
        if self.settings.loss == "exact":
            logits = unrounded(logits)
        if self.settings.labels == "predicted":
            y = ops.argmax(logits, axis=-1)
        elif y.shape == logits.shape and logits.shape[-1] > 1:
            return ops.categorical_crossentropy(y, logits, from_logits=True)
        y = ops.reshape(y, (-1,))
        return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Return the classifier's output shape."""
        return self.model.compute_output_shape(input_shape)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Do nothing: the classifier is built."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, including the classifier."""
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            **dataclasses.asdict(self.settings),
            "outputs": self._outputs,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "AdversarialTraining":
        """Return the model that `get_config` described."""
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(**{**config, "model": model})
