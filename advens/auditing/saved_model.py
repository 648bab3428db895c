"""TensorFlow's SavedModel as a Keras model, through which attacks have a gradient."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from keras import ops

from advens import backend
from advens.arrays import Images, Tensor
from advens.program import reason

_ENDPOINT: Final = "serving_default"


def load_saved_model(path: Path) -> keras.Model:
    """Return the function that a SavedModel serves, as a Keras model.

    Args:
        path: the directory of the SavedModel.

    Raises:
        ValueError: if it serves no function of one batch of float32 images, or Keras's
            backend is not TensorFlow.
    """
    if backend.name() != "tensorflow":
        raise ValueError(
            f"{path} is a SavedModel, which only Keras's TensorFlow backend can call. "
            f"Received: KERAS_BACKEND={backend.name()}"
        )
    try:
        layer = keras.layers.TFSMLayer(str(path), call_endpoint=_ENDPOINT)
        signature = layer.call_endpoint_fn.structured_input_signature
    except Exception as error:  # TensorFlow's errors have no common base class
        raise ValueError(
            f"{path} must be a SavedModel that serves {_ENDPOINT!r} ({reason(error)})"
        ) from error
    specs = keras.tree.flatten(signature)
    shapes = [tuple(spec.shape) for spec in specs if spec.shape.rank]
    if (
        len(specs) != 1
        or specs[0].dtype.name != "float32"
        or not shapes
        or shapes[0][0]
    ):
        received = ", ".join(f"{spec.dtype.name} {spec.shape}" for spec in specs)
        raise ValueError(
            f"{path} must take one float32 tensor, a batch of images of any number. "
            f"Received: {received or 'none'}"
        )
    inputs = keras.Input(batch_shape=shapes[0])
    # A dictionary, often of one tensor.
    outputs = keras.tree.flatten(layer(inputs))
    return keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)


def check_gradients(
    paths: Sequence[Path], models: Sequence[keras.Model], x: Images
) -> None:
    """Raise a `ValueError` if no gradient passes through a SavedModel.

    It may hold operations that have none, or have been saved without theirs. Attacks
    would find nothing, and the model would look robust.

    Args:
        paths: the files of the models.
        models: what `load_models` returned.
        x: `(n, h, w, c)` in [0, 1], a few images.
    """
    for path, model in zip(paths, models, strict=True):
        if not any(isinstance(layer, keras.layers.TFSMLayer) for layer in model.layers):
            continue
        # The sum of probabilities is constant, so weigh them.
        weights = np.random.default_rng(0).normal(size=model.output_shape[1:])

        def weighted(x: Tensor, model: keras.Model = model, w: Any = weights) -> Tensor:
            return ops.sum(model(x, training=False) * ops.cast(w, "float32"), axis=-1)

        try:
            gradient = backend.input_gradient(weighted, ops.convert_to_tensor(x))
            reason = "it is exactly 0"
            passes = bool(ops.any(gradient != 0))
        except Exception as error:  # TensorFlow's errors have no common base class
            passes, reason = False, reason(error)
        if not passes:
            raise ValueError(
                f"{path} has no gradient with respect to the images ({reason}), which "
                "attacks need. Save the model as a .keras file, or export it with its "
                "gradients"
            )
