"""`Ensemble`: any Keras classifiers that vote with their mean probability."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from advens.arrays import Tensor
from advens.backend import ProgramCache
from advens.models.logits import Outputs, logits_model

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("advens")
class Ensemble(keras.Model):
    """Classifiers that vote with the mean of their output probabilities (Section 3).

    Calling it maps `(n, h, w, c)` images to `(n, num_classes)` probabilities, whether
    the members return logits or probabilities. `len(ensemble)` and `ensemble[i]` give
    the members; everything else is `keras.Model`.

    Args:
        members: at least one built Keras classifier, all with the same input and output
            shape.
        outputs: what members return whose last layer does not show it, see
            `logits_model`: one value for all, or a list with one per member, None for
            those that show it.

    Attributes:
        members: the classifiers.
        logits_models: each member up to its logits; they share the members' weights.
        programs: what is compiled for attacks on this ensemble. It has room for 32
            programs and eight more per member; those used least recently are dropped.

    Raises:
        ValueError: if there is no member, one is not a classifier of two or more
            classes with one input and one output, the shapes differ, or a member's
            last layer does not show what it returns.
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
        _check_members(members)
        per_member: Sequence[Outputs | None]
        if outputs is None or isinstance(outputs, str):
            per_member = [outputs for _ in members]
        else:
            per_member = outputs
        if len(per_member) != len(members):
            raise ValueError(
                "`outputs` must be one value for all members, or one per member. "
                f"Received: {len(per_member)} for {len(members)} members"
            )
        self.members = members
        self._outputs = outputs
        self.logits_models = _Untracked(
            logits_model(member, output)
            for member, output in zip(members, per_member, strict=True)
        )
        self.programs = ProgramCache(32 + 8 * len(members))
        self.built = True

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if the members are subclassed and do not show it."""
        shapes = (_output_shape(member) for member in self.members)
        return next((shape[-1] for shape in shapes if shape), None)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> keras.Model:
        return self.members[index]

    def member_logits(
        self, x: Tensor, index: int | None = None, *, training: bool = False
    ) -> Tensor:
        """Return the members' logits, in float32.

        Args:
            x: `(n, h, w, c)` float32 in [0, 1].
            index: which member; None for all.
            training: whether dropout is on.

        Returns:
            `(m, n, k)`, or `(n, k)` for one member.
        """
        if index is None:
            return ops.stack(
                [self.member_logits(x, i, training=training) for i in range(len(self))]
            )
        logits = self.logits_models[index](x, training=training)
        _check_output_shape(tuple(logits.shape), f"members[{index}]")
        return ops.cast(logits, "float32")

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Return the mean of the members' probabilities."""
        logits = self.member_logits(inputs, training=training)
        return ops.mean(ops.softmax(logits), axis=0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the members' output shape."""
        return self.members[0].compute_output_shape(input_shape)

    def build(self, input_shape: Shape) -> None:
        """Do nothing: the members are built."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, including the members."""
        members = [keras.saving.serialize_keras_object(m) for m in self.members]
        return {"members": members, "outputs": self._outputs, "name": self.name}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Ensemble":
        """Return the ensemble that `get_config` described."""
        members = [
            keras.saving.deserialize_keras_object(m, custom_objects=custom_objects)
            for m in config["members"]
        ]
        return cls(**{**config, "members": members})


def check_ensemble(ensemble: object) -> None:
    """Raise a `ValueError` unless it is an `Ensemble`."""
    if not isinstance(ensemble, Ensemble):
        raise ValueError(
            "`ensemble` must be an `Ensemble`; for a single model, Ensemble([model]). "
            f"Received: {ensemble!r}"
        )


class _Untracked(Sequence):
    """Models whose weights Keras does not track: they are the members' already."""

    def __init__(self, models: Iterable[keras.Model]) -> None:
        self._models = tuple(models)

    def __getitem__(self, index: Any) -> Any:
        return self._models[index]

    def __len__(self) -> int:
        return len(self._models)


def _check_members(members: Sequence[keras.Model]) -> None:
    if not members:
        raise ValueError("`members` must hold at least one model. Received: none")
    for i, member in enumerate(members):
        if not isinstance(member, keras.Model):
            raise ValueError(
                f"`members` must be Keras models. Received: members[{i}]={member!r}"
            )
        name = f"members[{i}] ({member.name!r})"
        if not member.built:
            raise ValueError(
                f"`members` must be built. Received: {name}, which has no input shape "
                "yet; call it once or give it a keras.Input"
            )
        _check_classifier(member, name)
        pairs = (
            (_input_shape(members[0]), _input_shape(member)),
            (_output_shape(members[0]), _output_shape(member)),
        )
        if any(first != shape for first, shape in pairs if first and shape):
            raise ValueError(
                "`members` must have the same input and output shape. Received: "
                f"members[0] maps {pairs[0][0]} to {pairs[1][0]}, members[{i}] "
                f"maps {pairs[0][1]} to {pairs[1][1]}"
            )


def _input_shape(model: keras.Model) -> Shape | None:
    """Return a model's input shape; None for a subclassed model, which has none."""
    return getattr(model, "input_shape", None)


def _output_shape(model: keras.Model) -> Shape | None:
    return getattr(model, "output_shape", None)


def _check_classifier(model: keras.Model, name: str) -> None:
    """Raise a `ValueError` unless a model maps images to two or more classes."""
    for kind in ("inputs", "outputs"):
        tensors = getattr(model, kind, None) or [None]  # subclassed models have none
        if len(tensors) > 1:
            raise ValueError(
                "`members` must have one input and one output. Received: "
                f"{name} with {len(tensors)} {kind}"
            )
    if shape := _output_shape(model):
        _check_output_shape(shape, name)


def _check_output_shape(shape: Shape, name: str) -> None:
    classes = shape[-1] if len(shape) == 2 else None
    if classes is None or classes < 2:
        raise ValueError(
            "`members` must return `(n, num_classes)`, one logit or probability for "
            f"each of two or more classes. Received: {name}, which returns {shape}"
        )
