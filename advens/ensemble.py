"""`Ensemble`: any Keras classifiers, voting by the mean of their probabilities."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import keras
from keras import ops

from advens.logits import Outputs, logits_model

Compute = Literal["float32", "bfloat16"]


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
    if output_shape:
        _check_output(output_shape, name)


def _check_output(shape: tuple, name: str) -> None:
    if len(shape) != 2 or shape[-1] < 2:
        raise ValueError(
            "`members` must return `(n, num_classes)`, of two classes or more (of two, "
            f"as two logits or probabilities). Received: {name}, which returns {shape}"
        )


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
        members = tuple(members)
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
        # What `evaluation` has compiled for this ensemble; Keras need not track it.
        self.__dict__["programs"] = {}
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
            found = ops.cast(logits(x, training=training), "float32")
        _check_output(tuple(found.shape), f"members[{index}]")
        return found

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
