"""The defences beside which the paper sets ensembles: two ways of training a member.

Adversarial training is a model to `fit`, defensive distillation a function from a
teacher and its training set to a student. Both take any Keras classifier.
"""

import dataclasses
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from advens import paper
from advens.checks import check_choices
from advens.gradients import compiled, input_gradient, unrounded
from advens.logits import Outputs, logits_model

Formula = Literal["printed", "papernot"]
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


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The settings of defensive distillation.

    Attributes:
        temperature: T, > 0.
        formula: of the smoothed labels (docs/protocol.md, point 21). `"printed"`:
            softmax(F(x) / T) of the teacher's probabilities F, as Section 4 has it;
            `"papernot"`: softmax(Z(x) / T) of its logits Z, the student trained at T
            and used at 1 (Papernot et al. 2016, arXiv:1511.04508).
    """

    temperature: float = paper.TEMPERATURE  # Section 4
    formula: Formula = "printed"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(
                "`temperature` must be > 0 and finite. "
                f"Received: temperature={self.temperature}"
            )
        check_choices(self, formula=Formula)


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


def smoothed_labels(
    teacher: keras.Model,
    x: np.ndarray,
    *,
    temperature: float = paper.TEMPERATURE,
    formula: Formula = "printed",
    outputs: Outputs | None = None,
    batch_size: int = 500,
) -> np.ndarray:
    """Return the labels that a student learns (Section 4, Papernot et al. 2016).

    With the printed formula at T = 10 and ten classes, a certain teacher's top label is
    e^0.1 / (e^0.1 + 9) = .10937, and each other one 1 / (e^0.1 + 9) = .09896.

    Args:
        teacher: a trained classifier.
        x: `(n, h, w, c)` float32 in [0, 1], the images that it was trained on.
        temperature: see `Distillation`.
        formula: see `Distillation`.
        outputs: what `teacher` returns if its last layer does not tell; see
            `logits.logits_model`.
        batch_size: images at once.

    Returns:
        `(n, num_classes)` float32; each row sums to 1.
    """
    settings = Distillation(temperature, formula)
    logits = logits_model(teacher, outputs)
    if len(x) == 0:
        raise ValueError("`x` must hold one image at least. Received: none")

    def labels(x: Any) -> Any:
        scores = ops.cast(logits(x, training=False), "float32")
        if settings.formula == "printed":
            scores = ops.softmax(scores)
        return ops.softmax(scores / settings.temperature)

    function = compiled(labels, teacher)
    batches = (x[i : i + batch_size] for i in range(0, len(x), batch_size))
    return np.concatenate([ops.convert_to_numpy(function(batch)) for batch in batches])


def student_model(
    student: keras.Model,
    *,
    temperature: float = paper.TEMPERATURE,
    formula: Formula = "printed",
    outputs: Outputs | None = None,
) -> keras.Model:
    """Return the model to fit to the smoothed labels: the student up to its logits.

    With Papernot's formula they are divided by T. It is a new model that shares the
    student's weights; the student itself is used at 1.

    Args:
        student: a classifier of its own weights.
        temperature: see `Distillation`.
        formula: see `Distillation`.
        outputs: what `student` returns if its last layer does not tell; see
            `logits.logits_model`.
    """
    settings = Distillation(temperature, formula)
    logits = logits_model(student, outputs)
    model = keras.Sequential([logits])
    if settings.formula == "papernot":
        # Not `Rescaling`, which takes TensorFlow for granted.
        model.add(keras.layers.Lambda(_divided, arguments={"by": temperature}))
    if shape := getattr(logits, "input_shape", None):  # a subclassed model has none
        model.build(shape)
    return model


@keras.saving.register_keras_serializable("advens")
def _divided(logits: Any, by: float) -> Any:
    return logits / by


def distill(
    teacher: keras.Model,
    student: keras.Model,
    x: np.ndarray,
    *,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    temperature: float = paper.TEMPERATURE,
    formula: Formula = "printed",
    teacher_outputs: Outputs | None = None,
    student_outputs: Outputs | None = None,
    jit_compile: bool | str = "auto",
    **fit: Any,
) -> keras.callbacks.History:
    """Train a student on a teacher's smoothed labels; the teacher stays as it is.

    Args:
        teacher: a trained classifier.
        student: a classifier of its own weights, which are trained; what it was
            compiled with stays.
        x: see `smoothed_labels`.
        optimizer: see `keras.Model.compile`.
        temperature: see `Distillation`.
        formula: see `Distillation`.
        teacher_outputs: see `smoothed_labels`.
        student_outputs: see `student_model`.
        jit_compile: see `keras.Model.compile`.
        **fit: arguments of `keras.Model.fit`, such as `epochs` and `batch_size`.
    """
    options: Any = {"temperature": temperature, "formula": formula}
    labels = smoothed_labels(teacher, x, outputs=teacher_outputs, **options)
    model = student_model(student, outputs=student_outputs, **options)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return model.fit(x, labels, **fit)
