"""A classifier up to its logits, of two or more classes, whatever it returns."""

from typing import Any, Literal, get_args

import keras
from keras import ops

from advens.arrays import Tensor
from advens.checks import check_choice
from advens.models.endings import find_ending, is_functional, operations

Outputs = Literal["logits", "probs"]
Shape = tuple[int | None, ...]

# The smallest normal float32 keeps a logarithm finite.
_SMALLEST = 1.1754944e-38


def logits_model(
    model: keras.Model, outputs: Outputs | None = None, *, name: str | None = None
) -> keras.Model:
    """Return the model up to its logits. It shares the layers of `model`.

    Gradients of losses are computed from logits: behind a softmax and a mean, Keras
    clips probabilities at 1e-7, and many gradients become exactly zero.

    Args:
        model: a Sequential or functional classifier that ends in a softmax (a layer, an
            activation or `keras.ops.softmax`) or in a `Dense` layer without activation
            (logits). If it has one output unit, that is the logit of class 1, or, with
            a sigmoid, its probability.
        outputs: what a model returns that ends in none of these: `"logits"`, or
            `"probs"`, whose logarithm then serves as logits.
        name: of the model, in errors.

    Returns:
        A model from images to logits `(n, k)`, k >= 2. From one output unit with logit
        z it makes the logits 0 and z, whose softmax is the sigmoid.

    Raises:
        ValueError: if `model` is no built classifier of images with one input and one
            output, if its last layer does not show what it returns and `outputs` is not
            given, or if `outputs` contradicts the last layer.
    """
    name = name or f"model {getattr(model, 'name', model)!r}"
    _check_model(model, name)
    check_choice("outputs", outputs, (*get_args(Outputs), None))
    if is_functional(model):
        return _logits_of_graph(model, outputs, name)
    if outputs is None:
        raise ValueError(_cannot_tell(name))
    return _LogitsOfSubclass(model, outputs, name=f"{model.name}_logits")


@keras.saving.register_keras_serializable("advens")
class AsLogits(keras.layers.Layer):
    """Turns what a classifier returns into logits of two or more classes.

    Args:
        outputs: what it returns, `(n, k)`: `"logits"` or `"probs"`. With k = 1 it is
            the logit or the probability of class 1.
    """

    def __init__(self, outputs: Outputs, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.outputs = outputs

    def call(self, inputs: Tensor) -> Tensor:
        """Return `(n, max(k, 2))` logits, in float32 if `inputs` are probabilities."""
        one_unit = inputs.shape[-1] == 1
        if self.outputs == "probs":
            # In half precision, the logarithm of a small probability is not finite.
            probs = ops.cast(inputs, "float32")
            inputs = _log(probs) - _log(1 - probs) if one_unit else _log(probs)
        return ops.pad(inputs, ((0, 0), (1, 0))) if one_unit else inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the logits."""
        return (input_shape[0], num_classes(input_shape))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "outputs": self.outputs}


@keras.saving.register_keras_serializable("advens")
class _LogitsOfSubclass(keras.Model):
    """A model whose graph Keras does not know, with its outputs as logits."""

    def __init__(self, model: keras.Model, returned: Outputs, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.model = model
        self.as_logits = AsLogits(returned)
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        returned = keras.tree.flatten(self.model(inputs, training=training))
        name = f"model {self.model.name!r}"
        _check_one("outputs", returned, name)
        _check_shape(tuple(returned[0].shape), name)
        return self.as_logits(returned[0])


def num_classes(shape: Shape) -> int | None:
    """Return the number of classes of a classifier whose output has this shape."""
    return 2 if shape[-1] == 1 else shape[-1]


def _log(probs: Tensor) -> Tensor:
    return ops.log(ops.maximum(probs, _SMALLEST))


def _logits_of_graph(
    model: keras.Model, outputs: Outputs | None, name: str
) -> keras.Model:
    _check_graph(model, name)
    [output] = model.outputs
    units = output.shape[-1]
    ending, tensor = find_ending(output)
    if isinstance(output._keras_history.operation, AsLogits):
        ending = "logits"
    if (ending == "softmax" and units == 1) or (ending == "sigmoid" and units > 1):
        raise ValueError(
            "A classifier must end in a sigmoid of one unit or in a softmax of "
            f"several: the classes exclude each other. Received: {name}, which ends "
            f"in a {ending} of {units}"
        )
    if ending is None:
        if outputs is None:
            raise ValueError(_cannot_tell(name))
        returned, tensor = outputs, output
    else:
        kind = "logits" if ending == "logits" else "probs"
        if outputs not in (None, kind):
            raise ValueError(
                f"`outputs` must be {kind!r} or left out: {name} ends in {kind}, not "
                f"in {outputs}"
            )
        returned = "logits"
    if returned == "probs" or units == 1:
        tensor = AsLogits(returned, name=f"{model.name}_as_logits")(tensor)
    return keras.Model(model.inputs[0], tensor, name=f"{model.name}_logits")


def _check_model(model: object, name: str) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"A classifier must be a Keras model. Received: {name}, a "
            f"{type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            f"A classifier must be built. Received: {name}, which has no input shape "
            "yet; call it once or give it a keras.Input"
        )


def _check_graph(model: keras.Model, name: str) -> None:
    _check_one("inputs", model.inputs, name)
    _check_one("outputs", model.outputs, name)
    _check_shape(tuple(model.outputs[0].shape), name)
    dtype = model.inputs[0].dtype
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "A classifier must take images as floats: with respect to integers there "
            f"is no gradient. Received: {name}, whose input is {dtype}"
        )
    for layer in operations(model):
        if isinstance(layer, keras.layers.Embedding):
            raise ValueError(
                "A classifier must be a differentiable function of images, which an "
                f"Embedding is not. Received: {name} with layer {layer.name!r}"
            )


def _check_one(kind: str, tensors: list[Tensor], name: str) -> None:
    if len(tensors) != 1:
        raise ValueError(
            "A classifier must have one input and one output. Received: "
            f"{name} with {len(tensors)} {kind}"
        )


def _check_shape(shape: Shape, name: str) -> None:
    if len(shape) != 2 or shape[-1] is None:
        raise ValueError(
            "A classifier must return `(n, num_classes)`, one logit or probability per "
            "class, or `(n, 1)`, that of class 1. Received: "
            f"{name}, which returns {shape}"
        )


def _cannot_tell(name: str) -> str:
    return (
        f"Cannot tell whether {name} returns logits or probabilities: it ends neither "
        "in a softmax, nor in a sigmoid of one unit, nor in a Dense layer without "
        "activation. Pass outputs='logits' or outputs='probs'."
    )
