"""`Ensemble`: any Keras classifiers, voting by the mean of their probabilities."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import keras
from keras import ops

Outputs = Literal["logits", "probs"]
Compute = Literal["float32", "bfloat16"]


class _WithoutSoftmax(keras.layers.Layer):
    """A `Dense` layer whose softmax is left away; it shares the layer's weights."""

    def __init__(self, dense: keras.layers.Dense) -> None:
        super().__init__(dtype=dense.dtype_policy)
        self.dense = dense
        self.built = True

    def call(self, inputs: Any) -> Any:
        logits = ops.matmul(inputs, self.dense.kernel)
        return logits if self.dense.bias is None else logits + self.dense.bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.dense.units)


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


@contextlib.contextmanager
def _computing_in(compute: Compute, model: keras.Model) -> Iterator[None]:
    """Let a model's layers compute in bfloat16; their weights stay as they are."""
    if compute not in get_args(Compute):
        raise ValueError(
            f"`compute` must be one of {get_args(Compute)}. Received: {compute!r}"
        )
    layers = model._flatten_layers() if compute == "bfloat16" else ()
    policies = [(layer, layer.dtype_policy) for layer in layers]
    try:
        for layer, _ in policies:
            layer.dtype_policy = "mixed_bfloat16"
        yield
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy


def _shapes(model: keras.Model) -> tuple[Any, Any]:
    # A subclassed model does not tell its shapes.
    return getattr(model, "input_shape", None), getattr(model, "output_shape", None)


def _check_classifier(model: keras.Model, name: str) -> None:
    """Raise a `ValueError` unless a model maps images to two or more classes."""
    for what in ("inputs", "outputs"):
        tensors = getattr(model, what, None) or [None]  # subclassed models have none
        if len(tensors) > 1:
            raise ValueError(
                "`members` must have one input and one output. Received: "
                f"{name} with {len(tensors)} {what}"
            )
    _, output_shape = _shapes(model)
    if output_shape and (len(output_shape) != 2 or output_shape[-1] < 2):
        raise ValueError(
            "`members` must return `(n, num_classes)`, of two classes or more (of two, "
            "as two logits or probabilities). Received: "
            f"{name}, which returns {output_shape}"
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


@keras.saving.register_keras_serializable("advens")
class Ensemble(keras.Model):
    """Classifiers that vote by the mean of their output probabilities (Section 3).

    Calling it maps `(n, h, w, c)` images to `(n, num_classes)` probabilities, whether
    the members return logits or probabilities. `len(ensemble)` and `ensemble[i]` give
    the members; all else is `keras.Model`.

    Args:
        members: at least one built Keras classifier, all of the same input and output
            shape.
        outputs: what members return whose last layer does not tell, see `logits_model`;
            one for all, or a list of one a member, None for those that tell.

    Raises:
        ValueError: if there is no member, one is no classifier of two classes or more
            with one input and one output, the shapes differ, or a member's last layer
            does not tell what it returns.
    """

    def __init__(
        self,
        members: Sequence[keras.Model],
        *,
        outputs: Outputs | Sequence[Outputs | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        members = list(members)
        each = [outputs] * len(members) if isinstance(outputs, str | None) else outputs
        if not members:
            raise ValueError("`members` must hold at least one model. Received: none")
        for i, member in enumerate(members):
            if not isinstance(member, keras.Model):
                raise ValueError(
                    f"`members` must be Keras models. Received: members[{i}]={member!r}"
                )
            if not member.built:
                raise ValueError(
                    f"`members` must be built. Received: members[{i}] "
                    f"({member.name!r}), which has no input shape yet; call it once "
                    "or give it a keras.Input"
                )
            _check_classifier(member, f"members[{i}] ({member.name!r})")
            shapes = [_shapes(m) for m in (members[0], member)]
            if any(a != b for a, b in zip(*shapes, strict=True) if a and b):
                raise ValueError(
                    "`members` must have the same input and output shape. Received: "
                    f"members[0] maps {shapes[0][0]} to {shapes[0][1]}, members[{i}] "
                    f"maps {shapes[1][0]} to {shapes[1][1]}"
                )
        if len(each) != len(members):
            raise ValueError(
                "`outputs` must be one for all members, or one a member. Received: "
                f"{len(each)} for {len(members)} members"
            )
        self.members = members
        self._outputs = outputs
        # Bound methods: a list of models would be tracked, and saved, a second time.
        self._logits: list[Any] = [
            logits_model(member, its).__call__
            for member, its in zip(members, each, strict=True)
        ]
        self.built = True

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if the members are subclassed and do not tell."""
        shapes = (_shapes(member)[1] for member in self.members)
        return next((shape[-1] for shape in shapes if shape), None)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> keras.Model:
        return self.members[index]

    def member_logits(
        self,
        x: Any,
        index: int | None = None,
        *,
        training: bool = False,
        compute: Compute = "float32",
    ) -> Any:
        """Return the members' logits, in float32.

        Args:
            x: `(n, h, w, c)` float32 in [0, 1].
            index: of one member; None for all.
            training: whether dropout is on.
            compute: `"float32"`: each layer computes as its own dtype policy says;
                `"bfloat16"`: in bfloat16, from the same weights.

        Returns:
            `(m, n, k)`, or `(n, k)` of one member.
        """
        if index is None:
            options: Any = {"training": training, "compute": compute}
            members = range(len(self))
            return ops.stack([self.member_logits(x, i, **options) for i in members])
        logits = self._logits[index]
        with _computing_in(compute, logits.__self__):
            return ops.cast(logits(x, training=training), "float32")

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the mean of the members' probabilities."""
        logits = self.member_logits(inputs, training=training)
        return ops.mean(ops.softmax(logits), axis=0)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the members' output shape."""
        return self.members[0].compute_output_shape(input_shape)

    def build(self, input_shape: tuple) -> None:
        """Do nothing: the members are built."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the members among them."""
        members = [keras.saving.serialize_keras_object(m) for m in self.members]
        return {"members": members, "outputs": self._outputs, "name": self.name}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict | None = None
    ) -> "Ensemble":
        """Return what `get_config` described."""
        members = [
            keras.saving.deserialize_keras_object(m, custom_objects=custom_objects)
            for m in config["members"]
        ]
        return cls(**{**config, "members": members})
