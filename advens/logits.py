"""Where a classifier's logits are: before its softmax, if it has one."""

from typing import Any, Literal

import keras
from keras import ops

Outputs = Literal["logits", "probs"]


@keras.saving.register_keras_serializable("advens")
class _WithoutSoftmax(keras.layers.Layer):
    """A `Dense` layer whose softmax is left away; it shares the layer's weights."""

    def __init__(self, dense: keras.layers.Dense, **kwargs: Any) -> None:
        super().__init__(**{"dtype": dense.dtype_policy, **kwargs})
        self.dense = dense
        self.built = True

    def call(self, inputs: Any) -> Any:
        logits = ops.matmul(inputs, self.dense.kernel)
        return logits if self.dense.bias is None else logits + self.dense.bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
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

    Losses for gradients are computed from logits: behind a softmax and a mean, Keras
    clips probabilities at 1e-7 and many gradients become exactly zero.

    Args:
        model: a Sequential or functional classifier that ends in a `Softmax` layer, in
            a `Dense` or `Activation` layer with softmax activation, or in a `Dense`
            layer without activation (logits).
        outputs: says what an ending that is none of these returns: `"logits"`, or
            `"probs"`, whose logarithm then serves as logits.

    Raises:
        ValueError: if the ending tells neither and `outputs` is not given, or if
            `outputs` contradicts the ending.
    """
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} must be built: call it once, or give it a "
            "keras.Input"
        )
    kind, tensor = _ending(model)
    if outputs not in (None, "logits", "probs"):
        raise ValueError(
            f"`outputs` must be 'logits', 'probs' or None. Received: {outputs!r}"
        )
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
        "softmax activation, nor a Dense layer without activation. Say it by "
        "outputs='logits' or outputs='probs'."
    )


def _log(probs: Any) -> Any:
    # The smallest normal float32 keeps the logarithm finite.
    return ops.log(ops.maximum(probs, 1.1754944e-38))


def _ending(model: keras.Model) -> tuple[Outputs | None, Any]:
    """Tell what a model returns, and where its logits are if it returns probs."""
    if not _calls_as_keras(model) or not (
        isinstance(model, keras.Sequential)
        or getattr(model, "_is_graph_network", hasattr(model, "_nodes_by_depth"))
    ):
        return None, None
    return _ending_of_tensor(model.outputs[0])


def _calls_as_keras(layer: keras.Layer) -> bool:
    """Say whether a layer is called by Keras's own code, and not by a subclass's."""
    return type(layer).call.__module__.startswith("keras.")


def _ending_of_tensor(tensor: Any) -> tuple[Outputs | None, Any]:
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
