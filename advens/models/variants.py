"""The same network with other layers, which computes from the network's own weights.

An attack may want another layer class (a faster gradient) or another precision than the
network was made with. A variant is a network of its own: nothing of the user's model is
changed, so that any number of threads can use the model meanwhile.
"""

from collections.abc import Callable
from typing import Any, Final

import keras

from advens.arrays import Tensor
from advens.models.endings import graph_inputs, is_functional, operations
from advens.models.fast_layers import QuickConv2D, has_slow_input_gradient
from advens.models.logits import AsLogits

# Layers whose inference follows from their config and their weights alone. A Lambda may
# close over anything, and an adapted Normalization holds more than its weights.
_COPYABLE: Final = {AsLogits} | {
    getattr(keras.layers, name)
    for name in (
        *("InputLayer", "Dense", "Conv1D", "Conv2D", "DepthwiseConv2D"),
        *("SeparableConv2D", "Conv2DTranspose", "BatchNormalization"),
        *("LayerNormalization", "GroupNormalization", "Activation", "ReLU"),
        *("LeakyReLU", "PReLU", "ELU", "Softmax", "MaxPooling2D", "AveragePooling2D"),
        *("GlobalAveragePooling2D", "GlobalMaxPooling2D", "Flatten", "Reshape"),
        *("Permute", "ZeroPadding2D", "Cropping2D", "UpSampling2D", "Rescaling"),
        *("Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Concatenate"),
    )
}


def attacked_model(
    model: keras.Model, *, bfloat16: bool = False
) -> Callable[[Tensor], Tensor]:
    """Return the function that attacks differentiate in place of a model.

    On TensorFlow on a CPU, convolutions get a faster gradient where there is one.

    Args:
        model: a built model.
        bfloat16: whether the layers compute in bfloat16, from the same weights.

    Returns:
        A function from images to the outputs of `model`, with its current weights.

    Raises:
        ValueError: if it should compute in bfloat16 and cannot.
    """
    copyable = is_copyable(model)
    if bfloat16:
        if not copyable:
            raise ValueError(
                "compute='bfloat16' needs members that are Sequential or functional "
                "models of Keras's own layers and functions, not quantized and without "
                f"LoRA. Received: {model.name!r}"
            )
        return _variant(model, _in_bfloat16)
    if copyable and any(map(has_slow_input_gradient, operations(model))):
        return _variant(model, _with_quick_gradient)
    return lambda x: model(x, training=False)


def _variant(
    model: keras.Model, new_layer: Callable[[keras.Layer], keras.Layer]
) -> Callable[[Tensor], Tensor]:
    copies: dict[keras.Layer, keras.Layer] = {}

    def copied(operation: keras.Operation) -> keras.Operation:
        if isinstance(operation, keras.Model):
            return _copied_graph(operation, copied)
        if not isinstance(operation, keras.Layer):
            return type(operation).from_config(operation.get_config())
        if operation not in copies:
            copies[operation] = new_layer(operation)
        return copies[operation]

    network = _copied_graph(model, copied)
    pairs = [
        pair
        for layer, copy in copies.items()
        for pair in zip(copy.variables, layer.variables, strict=True)
    ]

    def call(x: Tensor) -> Tensor:
        weights = [(ours, theirs.value) for ours, theirs in pairs]
        with keras.StatelessScope(state_mapping=weights):
            return network(x, training=False)

    return call


def _copied_graph(
    model: keras.Model, copied: Callable[[keras.Operation], keras.Operation]
) -> keras.Model:
    """Copy a model's graph; `copied` returns the copy of a layer or operation."""
    outputs = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    # Keras would also copy what `model` is compiled with, which may not be possible.
    graph = keras.Model(graph_inputs(model), outputs, name=model.name)
    return keras.models.clone_model(graph, clone_function=copied)


def _in_bfloat16(layer: keras.Layer) -> keras.Layer:
    copy = _with_quick_gradient(layer)
    copy.dtype_policy = "mixed_bfloat16"
    return copy


def _with_quick_gradient(layer: keras.Layer) -> keras.Layer:
    quick = has_slow_input_gradient(layer)
    layer_class = QuickConv2D if quick else type(layer)
    return layer_class.from_config(without_randomness(layer.get_config()))


def without_randomness(config: Any) -> Any:
    """Return a layer's config whose initial weights are 0: they are never used.

    Random ones would also advance the global random state, for which Keras draws seeds.
    """
    if not isinstance(config, dict):
        return config
    changed = {key: without_randomness(value) for key, value in config.items()}
    for key in changed:
        if key.endswith("_initializer"):
            changed[key] = "zeros"
    return {**changed, "seed": 0} if "seed" in changed else changed


def is_copyable(model: keras.Model) -> bool:
    """Return whether config and weights tell all that the model's layers compute."""
    return is_functional(model) and all(
        _is_copyable_layer(operation)
        if isinstance(operation, keras.Layer)
        else _is_copyable_operation(operation)
        for operation in operations(model)
    )


def _is_copyable_layer(layer: keras.Layer) -> bool:
    if type(layer) not in _COPYABLE:
        return False
    # The config lacks the scale of LoRA.
    if getattr(layer, "lora_enabled", False) or layer.quantization_mode:
        return False
    # From a config, an activation or a regularizer of the user's own cannot be made.
    return all(map(_is_known, filter(callable, vars(layer).values())))


def _is_copyable_operation(operation: keras.Operation) -> bool:
    """Return whether an operation, such as the sum of two tensors, has a config."""
    try:
        operation.get_config()
    except NotImplementedError:
        return False
    return _is_known(operation)


def _is_known(function: object) -> bool:
    """Return whether a function or an object is one of Keras's or of this package."""
    module = getattr(function, "__module__", None) or ""
    return module.split(".")[0] in ("keras", "advens")
