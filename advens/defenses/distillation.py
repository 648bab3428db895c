"""Defensive distillation (Section 4): from a teacher and its training set to a student.

Teacher and student are any Keras classifiers.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from advens import backend
from advens.arrays import Floats, Images, Tensor
from advens.defenses.settings import (
    DEFAULT_TEMPERATURE,
    DistillationFormula,
    DistillationSettings,
)
from advens.models.logits import Outputs, logits_model


def smoothed_labels(
    teacher: keras.Model,
    x: Images,
    *,
    temperature: float = DEFAULT_TEMPERATURE,
    formula: DistillationFormula = "printed",
    outputs: Outputs | None = None,
    batch_size: int = 500,
) -> Floats:
    """Return the labels that a student learns (Section 4; Papernot et al. 2016).

    With the printed formula, T = 10 and ten classes, a teacher that is certain gives
    its class the label e^0.1 / (e^0.1 + 9) = .10937 and every other class
    1 / (e^0.1 + 9) = .09896.

    Args:
        teacher: a trained classifier.
        x: `(n, h, w, c)` float32 in [0, 1], the images that it was trained on.
        temperature: see `DistillationSettings`.
        formula: see `DistillationSettings`.
        outputs: what `teacher` returns if its last layer does not show it; see
            `logits_model`.
        batch_size: images per call.

    Returns:
        `(n, num_classes)` float32; each row sums to 1.
    """
    settings = DistillationSettings(temperature, formula)
    logits = logits_model(teacher, outputs)
    if len(x) == 0:
        raise ValueError("`x` must hold at least one image. Received: none")

    def labels(x: Tensor) -> Tensor:
        scores = ops.cast(logits(x, training=False), "float32")
        if settings.formula == "printed":
            scores = ops.softmax(scores)
        return ops.softmax(scores / settings.temperature)

    function = backend.compile(labels, teacher)
    batches = (x[i : i + batch_size] for i in range(0, len(x), batch_size))
    return np.concatenate([ops.convert_to_numpy(function(batch)) for batch in batches])


def student_model(
    student: keras.Model,
    *,
    temperature: float = DEFAULT_TEMPERATURE,
    formula: DistillationFormula = "printed",
    outputs: Outputs | None = None,
) -> keras.Model:
    """Return the model to fit to the smoothed labels: the student up to its logits.

    With Papernot's formula they are divided by T. The result is a new model that shares
    the student's weights; the student itself is used at temperature 1.

    Args:
        student: a classifier with weights of its own.
        temperature: see `DistillationSettings`.
        formula: see `DistillationSettings`.
        outputs: what `student` returns if its last layer does not show it; see
            `logits_model`.
    """
    settings = DistillationSettings(temperature, formula)
    logits = logits_model(student, outputs)
    model = keras.Sequential([logits])
    if settings.formula == "papernot":
        # `Rescaling` would need TensorFlow on every backend.
        model.add(keras.layers.Lambda(_divided, arguments={"by": temperature}))
    if shape := getattr(logits, "input_shape", None):  # subclassed models have none
        model.build(shape)
    return model


@keras.saving.register_keras_serializable("advens")
def _divided(logits: Tensor, by: float) -> Tensor:
    return logits / by


def distill(
    teacher: keras.Model,
    student: keras.Model,
    x: Images,
    *,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    temperature: float = DEFAULT_TEMPERATURE,
    formula: DistillationFormula = "printed",
    teacher_outputs: Outputs | None = None,
    student_outputs: Outputs | None = None,
    jit_compile: bool | str = "auto",
    **fit: Any,
) -> keras.callbacks.History:
    """Train a student on a teacher's smoothed labels; the teacher stays as it is.

    Args:
        teacher: a trained classifier.
        student: a classifier with weights of its own, which are trained; what it was
            compiled with stays.
        x: see `smoothed_labels`.
        optimizer: see `keras.Model.compile`.
        temperature: see `DistillationSettings`.
        formula: see `DistillationSettings`.
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
