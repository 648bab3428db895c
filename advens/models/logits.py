"""Where a classifier's logits are: before its softmax, if it has one."""

from typing import Any, Literal

import keras
from keras import ops

from advens.arrays import Tensor
from advens.checks import check_choice

Outputs = Literal["logits", "probs"]

# The smallest normal float32 keeps a logarithm finite.
_SMALLEST = 1.1754944e-38


@keras.saving.register_keras_serializable("advens")
class _WithoutSoftmax(keras.layers.Layer):
    """A `Dense` layer without its softmax; it shares the layer's weights."""

    def __init__(self, dense: keras.layers.Dense, **kwargs: Any) -> None:
        super().__init__(**{"dtype": dense.dtype_policy, **kwargs})
        self.dense = dense
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        logits = ops.matmul(inputs, self.dense.kernel)
        return logits if self.dense.bias is None else logits + self.dense.bias

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.dense.units)

    def get_config(self) -> dict[str, Any]:
        dense = keras.saving.serialize_keras_object(self.dense)
        return {**super().get_config(), "dense": dense}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_WithoutSoftmax":
        dense = keras.saving.deserialize_keras_object(config["dense"])
        return cls(**{**config, "dense": dense})


def logits_model(model: keras.Model, outputs: Outputs | None = None) -> keras.Model:
    """Return the model up to its logits. It shares the layers of `model`.

    Gradients of losses are computed from logits: behind a softmax and a mean, Keras
    clips probabilities at 1e-7, and many gradients become exactly zero.

    Args:
        model: a Sequential or functional classifier that ends in a `Softmax` layer, in
            a `Dense` or `Activation` layer with softmax activation, or in a `Dense`
            layer without activation (logits).
        outputs: what a model returns that ends in none of these: `"logits"`, or
            `"probs"`, whose logarithm then serves as logits.

    Raises:
        ValueError: if the last layer does not show what the model returns and `outputs`
            is not given, or if `outputs` contradicts the last layer.
    """
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} must be built: call it once, or give it a "
            "keras.Input"
        )
    kind, tensor = _ending(model)
    check_choice("outputs", outputs, ("logits", "probs", None))
    if outputs and kind and outputs != kind:
        raise ValueError(
            f"Model {model.name!r} ends in {kind}, not in {outputs}. Leave `outputs` "
            "out, or change the model's last layer."
        )
    if kind == "probs":
        inputs = model.inputs
        return keras.Model(inputs[0] if len(inputs) == 1 else inputs, tensor)
    if (kind or outputs) == "logits":
        return model
    if outputs == "probs":
        return keras.Sequential([model, keras.layers.Lambda(_log)])
    raise ValueError(
        f"Cannot tell whether model {model.name!r} returns logits or probabilities: "
        "its last layer is neither a Softmax, nor a Dense or Activation layer with "
        "softmax activation, nor a Dense layer without activation. Pass "
        "outputs='logits' or outputs='probs'."
    )


def is_functional(model: keras.Model) -> bool:
    """Return whether a model is a Sequential or functional graph of layers."""
    # Keras has no public name for it, and `_is_graph_network` not on every version.
    return _calls_as_keras(model) and (
        isinstance(model, keras.Sequential) or hasattr(model, "_nodes_by_depth")
    )


@keras.saving.register_keras_serializable("advens")
def _log(probs: Tensor) -> Tensor:
    return ops.log(ops.maximum(probs, _SMALLEST))


def _ending(model: keras.Model) -> tuple[Outputs | None, Tensor]:
    """Return what a model returns, and its logits' tensor if it returns probs."""
    if not is_functional(model):
        return None, None
    return _ending_of_tensor(model.outputs[0])


def _calls_as_keras(layer: keras.Layer) -> bool:
    """Return whether Keras's own code calls a layer, and not a subclass's."""
    return type(layer).call.__module__.startswith("keras.")


def _ending_of_tensor(tensor: Tensor) -> tuple[Outputs | None, Tensor]:
    layer, node_index, _ = tensor._keras_history
    inputs = layer._inbound_nodes[node_index].input_tensors
    activation = getattr(layer, "activation", None)
    if not _calls_as_keras(layer):
        return None, None
    if isinstance(layer, keras.layers.Softmax) and layer.axis in (-1, 1):
        return "probs", inputs[0]
    if isinstance(layer, keras.layers.Activation):
        if activation is keras.activations.softmax:
            return "probs", inputs[0]
        if activation is keras.activations.linear:
            return _ending_of_tensor(inputs[0])
    if isinstance(layer, keras.layers.Dense):
        if activation is keras.activations.softmax:
            return "probs", _WithoutSoftmax(layer)(inputs[0])
        if activation is keras.activations.linear:
            return "logits", tensor
    if isinstance(layer, keras.Model):
        kind, _ = _ending(layer)
        if kind == "probs":
            return "probs", logits_model(layer)(inputs[0])
        return kind, tensor
    return None, None
