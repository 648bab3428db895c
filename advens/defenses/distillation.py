"""Defensive distillation (Section 4): from a teacher and its training set to a student.

Teacher and student are any Keras classifiers.
"""

from collections.abc import Callable
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
        x: `(n, h, w, c)`, the images that it was trained on, scaled as they were then.
        temperature: see `DistillationSettings`.
        formula: see `DistillationSettings`.
        outputs: what `teacher` returns if its last layer does not show it; see
            `logits_model`.
        batch_size: images per call.

    Returns:
        `(n, num_classes)` float32; each row sums to 1. A teacher with a single output
        unit has two classes.
    """
    settings = DistillationSettings(temperature, formula)
    labels = _labels_function(teacher, settings, outputs)
    if len(x) == 0:
        raise ValueError("`x` must hold at least one image. Received: none")
    function = backend.compile(labels, teacher)
    batches = (x[i : i + batch_size] for i in range(0, len(x), batch_size))
    return np.concatenate([ops.convert_to_numpy(function(batch)) for batch in batches])


def _labels_function(
    teacher: keras.Model, settings: DistillationSettings, outputs: Outputs | None
) -> Callable[[Tensor], Tensor]:
    """Return the function from images to `smoothed_labels`."""
    logits = logits_model(teacher, outputs)

    def labels(x: Tensor) -> Tensor:
        scores = ops.cast(logits(x, training=False), "float32")
        if settings.formula == "printed":
            scores = ops.softmax(scores)
        return ops.softmax(scores / settings.temperature)

    return labels


def student_model(
    student: keras.Model,
    *,
    temperature: float = DEFAULT_TEMPERATURE,
    formula: DistillationFormula = "printed",
    outputs: Outputs | None = None,
) -> keras.Model:
    """Return the model to fit to the smoothed labels: the student up to its logits.

    With Papernot's formula they are divided by T. The result is a new model that shares
    the student's weights; the student itself is used at temperature 1. If it has a
    single output unit, the model still has two logits.

    Args:
        student: a classifier with weights of its own.
        temperature: see `DistillationSettings`.
        formula: see `DistillationSettings`.
        outputs: what `student` returns if its last layer does not show it; see
            `logits_model`.
    """
    return _student(student, DistillationSettings(temperature, formula), outputs)


def _student(
    student: keras.Model,
    settings: DistillationSettings,
    outputs: Outputs | None,
    teach: Callable[[Tensor], Tensor] | None = None,
) -> keras.Model:
    logits = logits_model(student, outputs)
    model = Student([logits], teach=teach)
    if settings.formula == "papernot":
        # `Rescaling` would need TensorFlow on every backend.
        divide = {"by": settings.temperature}
        model.add(keras.layers.Lambda(_divided, arguments=divide))
    if shape := getattr(logits, "input_shape", None):  # subclassed models have none
        model.build(shape)
    return model


@keras.saving.register_keras_serializable("advens")
class Student(keras.Sequential):
    """A student up to its logits, as it is trained.

    Args:
        teach: the function from images to labels that it learns, instead of the labels
            of the data; None for these. It is not saved.
    """

    def __init__(
        self, *args: Any, teach: Callable[[Tensor], Tensor] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._teach = teach

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        y_pred: Tensor | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """Return the loss, with the labels of `teach` if there is one."""
        if self._teach:
            y = ops.stop_gradient(self._teach(x))
        return super().compute_loss(x, y, y_pred, sample_weight, training=training)


@keras.saving.register_keras_serializable("advens")
def _divided(logits: Tensor, by: float) -> Tensor:
    return logits / by


def distill(
    teacher: keras.Model,
    student: keras.Model,
    x: Any,
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

    The labels of an array of images are computed once. Of any other data set, or if
    there is `validation_data`, those of each batch are computed as it comes: labels
    that the data hold do not count, weights do.

    Args:
        teacher: a trained classifier, such as an `Ensemble` with
            `teacher_outputs="probs"`.
        student: a classifier with weights of its own, which are trained; what it was
            compiled with stays.
        x: see `smoothed_labels`; or what else `keras.Model.fit` takes as `x`: a
            `tf.data.Dataset`, a `PyDataset` or a generator of `x`, `(x, y)` or
            `(x, y, sample_weight)`.
        optimizer: see `keras.Model.compile`.
        temperature: see `DistillationSettings`.
        formula: see `DistillationSettings`.
        teacher_outputs: see `smoothed_labels`.
        student_outputs: see `student_model`.
        jit_compile: see `keras.Model.compile`.
        **fit: arguments of `keras.Model.fit`, such as `epochs` and `batch_size`.
    """
    if isinstance(x, list | tuple | dict):
        raise ValueError(
            "`x` must be an array of images, a tf.data.Dataset, a PyDataset or a "
            f"generator. Received: a {type(x).__name__}"
        )
    trained = {id(variable) for variable in student.trainable_variables}
    if any(id(variable) in trained for variable in teacher.variables):
        raise ValueError(
            "`student` must have weights of its own. Received: one that shares "
            f"trainable weights with the teacher, {teacher.name!r}"
        )
    options: Any = {"temperature": temperature, "formula": formula}
    settings = DistillationSettings(**options)
    teach = None
    if hasattr(x, "shape") and fit.get("validation_data") is None:
        fit["y"] = smoothed_labels(teacher, x, outputs=teacher_outputs, **options)
    else:
        teach = _labels_function(teacher, settings, teacher_outputs)
    model = _student(student, settings, student_outputs, teach)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return model.fit(x, **fit)
