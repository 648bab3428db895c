"""TensorFlow's SavedModel as a Keras model, through which attacks have a gradient."""

from pathlib import Path
from typing import Final

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
    shapes = [tuple(spec.shape) if spec.shape.rank else (0,) for spec in specs]
    types = [spec.dtype.name for spec in specs]
    if types != ["float32"] or shapes[0][0] is not None:
        received = " and ".join(map("{} {}".format, types, shapes)) or "none"
        raise ValueError(
            f"{path} must take one float32 tensor, a batch of any number of images. "
            f"Received: {received}"
        )
    inputs = keras.Input(batch_shape=shapes[0])
    # A dictionary, often of one tensor.
    outputs = keras.tree.flatten(layer(inputs))
    return keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)


def check_gradient(path: Path, model: keras.Model, x: Images) -> None:
    """Raise a `ValueError` if a model is a SavedModel through which no gradient passes.

    It may hold operations that have none, or have been saved without theirs. Attacks
    would find nothing, and the model would look robust.

    Args:
        path: the file of the model.
        model: the model, of any kind.
        x: `(n, h, w, c)` in [0, 1], a few images.
    """
    if not any(isinstance(layer, keras.layers.TFSMLayer) for layer in model.layers):
        return
    # The sum of a model's probabilities is constant; a weighted one is not.
    weights = np.random.default_rng(0).normal(size=model.output_shape[1:])

    def weighted(x: Tensor) -> Tensor:
        return ops.sum(model(x) * ops.cast(weights, "float32"), axis=-1)

    try:
        tensor = backend.input_gradient(weighted, ops.convert_to_tensor(x))
        gradient = ops.convert_to_numpy(tensor)
    except Exception as error:  # TensorFlow's errors have no common base class
        raise ValueError(_no_gradient(path, reason(error))) from error
    if not gradient.any():
        raise ValueError(_no_gradient(path, "it is exactly 0"))


def _no_gradient(path: Path, cause: str) -> str:
    return (
        f"{path} has no gradient with respect to the images ({cause}), which attacks "
        "need. Save the model as a .keras file, or export it with its gradients"
    )
