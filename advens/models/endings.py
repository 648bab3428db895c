"""How a graph of Keras's layers ends: in logits, or in an activation behind them."""

from typing import Any, Literal

import keras
from keras import ops

from advens.arrays import Tensor

Activation = Literal["softmax", "sigmoid"]
# "none" means that a tensor holds logits; None, that nobody can tell what it holds.
Ending = Activation | Literal["none"] | None

# Log-probabilities are logits, too.
_FUNCTIONS: dict[Any, Ending] = {
    keras.activations.softmax: "softmax",
    ops.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    ops.sigmoid: "sigmoid",
    keras.activations.log_softmax: "none",
    ops.log_softmax: "none",
}
_OPERATIONS: dict[str, Ending] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "LogSoftmax": "none",
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
    if not _calls_as_keras(operation):
        return None, tensor
    if isinstance(operation, keras.Model):
        if not is_functional(operation):
            return None, tensor
        ending, logits = find_ending(operation.outputs[tensor_index])
        if ending in ("softmax", "sigmoid"):
            inputs, name = graph_inputs(operation), _new_name(operation)
            part = keras.Model(inputs, logits, name=name)
            return ending, part(*node.arguments.args, **node.arguments.kwargs)
        if (
            len(node.input_tensors) == 1 and logits is operation.inputs[0]
        ):  # a model of nothing but linear activations
            return find_ending(node.input_tensors[0])
        return ending, tensor
    if len(node.input_tensors) != 1:  # such as a softmax with a mask
        return None, tensor
    [before] = node.input_tensors
    if isinstance(operation, keras.layers.Dense | keras.layers.EinsumDense):
        if _is_linear(operation):
            return "none", tensor
        ending = _ending_of_function(operation.activation, tensor)
        if ending in ("softmax", "sigmoid"):
            return ending, _without_activation(operation)(before)
        return ending, tensor
    if _is_linear(operation):
        return find_ending(before)
    ending = _ending_of_operation(operation, tensor)
    return ending, before if ending in ("softmax", "sigmoid") else tensor


def graph_inputs(model: keras.Model) -> Any:
    """Return the symbolic inputs of a functional model, as it takes them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _calls_as_keras(operation: keras.Operation) -> bool:
    """Return whether Keras's own code calls a layer, and not a subclass's."""
    return type(operation).call.__module__.startswith("keras.")


def _is_linear(operation: keras.Operation) -> bool:
    if isinstance(operation, keras.layers.Identity):
        return True
    activation = getattr(operation, "activation", None)
    return activation is keras.activations.linear


def _ending_of_operation(operation: keras.Operation, tensor: Tensor) -> Ending:
    if isinstance(operation, keras.layers.Activation):
        return _ending_of_function(operation.activation, tensor)
    if isinstance(operation, keras.layers.Softmax):
        return _ending_of_function(operation, tensor)
    if type(operation).__module__ != ops.softmax.__module__:
        return None
    if not _is_over_classes(getattr(operation, "axis", -1), tensor):
        return None
    return _OPERATIONS.get(type(operation).__name__)


def _ending_of_function(function: Any, tensor: Tensor) -> Ending:
    # An activation may be a layer.
    if isinstance(function, keras.layers.Softmax) and _calls_as_keras(function):
        return "softmax" if _is_over_classes(function.axis, tensor) else None
    endings = (end for known, end in _FUNCTIONS.items() if known is function)
    return next(endings, None)


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
