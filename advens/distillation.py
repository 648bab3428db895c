"""Defensive distillation (Section 4): from a teacher and its training set to a student.

Teacher and student are any Keras classifiers.
"""

import dataclasses
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from advens import paper
from advens.checks import check_choices
from advens.gradients import compiled
from advens.logits import Outputs, logits_model

Formula = Literal["printed", "papernot"]


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
