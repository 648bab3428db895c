"""How a graph of Keras's layers ends: in logits, or in an activation behind them."""

from typing import Any, Literal

import keras
from keras import ops

from advens.arrays import Tensor

# None: nobody can tell. Log-probabilities are logits, too.
Ending = Literal["softmax", "sigmoid", "logits"] | None
Function = Literal["softmax", "sigmoid", "log_softmax", "linear"] | None

_FUNCTIONS: list[tuple[Any, Function]] = [
    (keras.activations.linear, "linear"),
    (keras.activations.softmax, "softmax"),
    (ops.softmax, "softmax"),
    (keras.activations.sigmoid, "sigmoid"),
    (ops.sigmoid, "sigmoid"),
    (keras.activations.log_softmax, "log_softmax"),
    (ops.log_softmax, "log_softmax"),
]
_OPERATIONS: dict[str, Function] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "LogSoftmax": "log_softmax",
}


def is_functional(model: keras.Model) -> bool:
    """Return whether a model is a Sequential or functional graph of layers."""
    # Keras has no public name for it, and `_is_graph_network` not on every version. A
    # Sequential without a graph raises where its outputs are read.
    return _calls_as_keras(model) and (
        getattr(model, "outputs", None) is not None
        if isinstance(model, keras.Sequential)
        else hasattr(model, "_nodes_by_depth")
    )


def operations(model: keras.Model) -> list[keras.Operation]:
    """Return a functional model's layers and operations, and those of models in it."""
    found = []
    for operation in getattr(model, "operations", model.layers):
        if isinstance(operation, keras.Model):
            found += operations(operation)
        else:
            found.append(operation)
    return found


def find_ending(tensor: Tensor) -> tuple[Ending, Tensor]:
    """Follow an output of a functional model back to its logits.

    Every tensor knows which call of which layer made it, and which of the outputs of
    that call it is. So the way is right where layers are shared, where models are
    nested, and where those have several inputs or outputs.

    Args:
        tensor: a symbolic tensor.

    Returns:
        The last activation, and the symbolic tensor before it: a function of the same
        inputs, computed by the same layers. If nobody can tell, None and the tensor
        where the way ended.
    """
    operation, node_index, tensor_index = tensor._keras_history
    node = operation._inbound_nodes[node_index]
    if isinstance(operation, keras.Model):
        return _ending_of_model(tensor)
    if not _calls_as_keras(operation) or len(node.input_tensors) != 1:
        return None, tensor  # the layer is unknown, or has a second input, a mask
    [before] = node.input_tensors
    is_dense = isinstance(operation, keras.layers.Dense | keras.layers.EinsumDense)
    function = _last_function(operation, tensor)
    if function == "log_softmax" or (function == "linear" and is_dense):
        return "logits", tensor
    if function == "linear":
        return find_ending(before)
    if function is None:
        return None, tensor
    return function, _without_activation(operation)(before) if is_dense else before


def _ending_of_model(tensor: Tensor) -> tuple[Ending, Tensor]:
    """Do as `find_ending` for an output of a model in the model."""
    model, node_index, tensor_index = tensor._keras_history
    if not is_functional(model):
        return None, tensor
    node = model._inbound_nodes[node_index]
    ending, logits = find_ending(model.outputs[tensor_index])
    if ending in ("softmax", "sigmoid"):
        part = keras.Model(graph_inputs(model), logits, name=_new_name(model))
        return ending, part(*node.arguments.args, **node.arguments.kwargs)
    if logits is model.inputs[0] and len(model.inputs) == 1:
        # It computes nothing.
        return find_ending(node.input_tensors[0])
    return ending, tensor


def graph_inputs(model: keras.Model) -> Any:
    """Return the symbolic inputs of a functional model, as it takes them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _calls_as_keras(operation: keras.Operation) -> bool:
    """Return whether Keras's own code calls a layer, and not a subclass's."""
    return type(operation).call.__module__.startswith("keras.")


def _last_function(operation: keras.Operation, tensor: Tensor) -> Function:
    """Return which function of its input, or of what it computed, `tensor` is."""
    if isinstance(operation, keras.layers.Identity):
        return "linear"
    if isinstance(operation, keras.layers.Softmax):
        return _known_function(operation, tensor)
    if isinstance(
        operation,
        keras.layers.Dense | keras.layers.EinsumDense | keras.layers.Activation,
    ):
        return _known_function(operation.activation, tensor)
    if type(operation).__module__ != ops.softmax.__module__:
        return None
    if not _is_over_classes(getattr(operation, "axis", -1), tensor):
        return None
    return _OPERATIONS.get(type(operation).__name__)


def _known_function(function: Any, tensor: Tensor) -> Function:
    # An activation may be a layer.
    if isinstance(function, keras.layers.Softmax) and _calls_as_keras(function):
        return "softmax" if _is_over_classes(function.axis, tensor) else None
    return next((name for known, name in _FUNCTIONS if known is function), None)


def _is_over_classes(axis: Any, tensor: Tensor) -> bool:
    """Return whether an axis, or a list of one, is the last one."""
    if isinstance(axis, list | tuple) and len(axis) == 1:
        [axis] = axis
    return axis in (-1, len(tensor.shape) - 1)


def _without_activation(layer: keras.Layer) -> keras.Layer:
    """Return a layer that computes as `layer` does, but for the activation.

    It holds what `layer` holds now, the same variables and the same precision, so that
    it is right for quantized layers and for LoRA, too.
    """
    copy = object.__new__(type(layer))
    vars(copy).update(vars(layer))
    vars(copy).update(
        name=_new_name(layer),
        activation=keras.activations.linear,
        activity_regularizer=None,
        _inbound_nodes=[],
        _outbound_nodes=[],
    )
    return copy


def _new_name(operation: keras.Operation) -> str:
    """Return the name of an operation that may stand next to the one it replaces."""
    return f"{operation.name}_without_activation"
