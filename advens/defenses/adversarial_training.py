"""Adversarial training (Section 4): a model to `fit`, around any Keras classifier."""

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from advens import backend
from advens.arrays import Tensor
from advens.attacks.losses import logit_gradients
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

    `J_AT = rho J(x, y) + (1 - rho) J(x + eps sign(grad_x H(x, y)), y)`, Goodfellow et
    al. 2014, arXiv:1412.6572, where J is the loss that the model is compiled with,
    weighted as `fit` is told, and H the cross-entropy of the labels. For each batch the
    perturbation is computed from the current weights, with dropout off. Both losses
    have dropout on. With `rho=1` nothing is perturbed: this is plain training, weight
    for weight.

    Images and perturbation are float32, whatever the precision of the network. With
    `loss="exact"` the gradient does not underflow, however certain the network is.

    It predicts and evaluates as `model` does and shares its weights. Use it as
    `AdversarialTraining(model, eps=0.3)`, then `compile` and `fit` on whatever Keras
    fits: arrays, a `tf.data.Dataset`, a `PyDataset`, a generator. Images are
    `(n, h, w, c)`, floats in [0, 1]. On JAX, `add_loss` and activity regularizers count
    for the unperturbed images only.

    Args:
        model: the classifier, with one input and one output. One with a single output
            unit has two classes.
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
        logits = logits_model(model, outputs)
        # With the policy "mixed_float16", Keras scales the loss.
        super().__init__(**{"dtype": model.dtype_policy, **kwargs})
        self.settings = AdversarialSettings(eps, rho, box, labels, loss)
        self.model = model
        self._outputs = outputs
        # A bound method: a second model would be tracked, and saved, a second time.
        self._logits = logits.__call__
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Call the classifier."""
        return self.model(inputs, training=training)

    def perturbed(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `x + eps sign(grad_x H(x, y))`, with dropout off.

        Args:
            x: `(n, h, w, c)` in [0, 1].
            y: `(n,)` or `(n, 1)` int, or `(n, num_classes)` probabilities. Of two
                classes also `(n,)` or `(n, 1)`, the probability of the second.
        """
        if keras.backend.is_int_dtype(x.dtype):
            raise ValueError(
                "`x` must be images as floats in [0, 1], to which `eps` refers. "
                f"Received: dtype {keras.backend.standardize_dtype(x.dtype)}"
            )
        x = ops.cast(x, "float32")
        grad = ops.sign(backend.input_gradient(lambda x: self._attack_losses(x, y), x))
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
        if y is None:
            raise ValueError("`y` must be the labels of the images. Received: None")
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        rho = self.settings.rho
        if not training or rho == 1:
            return loss
        x_adv = self.perturbed(*keras.tree.flatten((x, y)))
        adversarial_loss = super().compute_loss(
            x_adv, y, self(x_adv, training=True), sample_weight, training=training
        )
        return rho * loss + (1 - rho) * adversarial_loss

    def _attack_losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the losses, `(n,)`, whose gradients the perturbation follows."""
        logits = ops.cast(self._logits(x, training=False), "float32")
        if self.settings.labels == "predicted":
            y = ops.argmax(logits, axis=-1)
        y = _standard_labels(y, logits.shape[-1])
        if self.settings.loss == "exact":
            return ops.sum(ops.stop_gradient(_directions(logits, y)) * logits, axis=-1)
        if len(y.shape) == 1:
            return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
        return ops.categorical_crossentropy(y, logits, from_logits=True)

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
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            **dataclasses.asdict(self.settings),
            "outputs": self._outputs,
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


def _standard_labels(y: Tensor, num_classes: int) -> Tensor:
    """Return labels as classes, `(n,)`, or as probabilities, `(n, num_classes)`."""
    size = math.prod(y.shape[1:])
    if len(y.shape) == 2 and size == num_classes:
        return ops.cast(y, "float32")
    if size != 1:
        raise ValueError(
            f"`y` must be `(n,)`, `(n, 1)` or `(n, {num_classes})`. Received: shape "
            f"{tuple(y.shape)}"
        )
    y = ops.reshape(y, (-1,))
    if num_classes == 2:
        y = ops.cast(y, "float32")
        return ops.stack([1 - y, y], axis=-1)
    return y


def _directions(logits: Tensor, y: Tensor) -> Tensor:
    """Return the gradients of the cross-entropies with respect to their logits.

    Each is multiplied by a positive factor, so that its largest entry is of size 1 and
    gradients in float16 do not underflow.

    Args:
        logits: `(n, num_classes)` float32.
        y: as `_standard_labels` returns them.
    """
    if len(y.shape) == 1:
        return logit_gradients(logits, y)[0]
    differences = ops.softmax(logits) - y
    sizes = ops.max(ops.abs(differences), axis=-1, keepdims=True)
    # A certain label leaves no difference where its probability rounds to 1.
    is_certain = ops.max(y, axis=-1, keepdims=True) == 1
    return ops.where(
        is_certain,
        logit_gradients(logits, ops.argmax(y, axis=-1))[0],
        differences / ops.maximum(sizes, keras.config.epsilon()),
    )
