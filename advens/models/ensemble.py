"""`Ensemble`: any Keras classifiers that vote."""

from collections.abc import Iterable, Sequence
from typing import Any, get_args

import keras
from keras import ops

from advens.arrays import Tensor
from advens.backend.program_cache import ProgramCache
from advens.checks import check_choice
from advens.models.derived import Derived, compatible
from advens.models.logits import Outputs, Shape
from advens.models.votes import Votes, vote


@keras.saving.register_keras_serializable("advens")
class Ensemble(keras.Model):
    """Classifiers that vote, by default with their mean probability (Section 3).

    Calling it maps `(n, h, w, c)` images to `(n, num_classes)` probabilities, whether
    the members return logits or probabilities. `len(ensemble)` and `ensemble[i]` give
    the members; everything else is `keras.Model`.

    Args:
        members: at least one built Keras classifier, all with the same input shape and
            number of classes. One with a single output unit has two classes.
        outputs: what members return whose last layer does not show it, see
            `logits_model`: one value for all, or a list with one per member, None for
            those that show it.
        votes: how they vote, see `models.votes.vote`: `"mean_probability"` as in the
            paper (Section 3), `"mean_logit"` or `"majority"`.
        **kwargs: arguments of `keras.Model`, such as `name`.

    Attributes:
        members: the classifiers.
        votes: how they vote.
        member_outputs: what they return, as it was given.

    Raises:
        ValueError: if there is no member, one is not a classifier of images with one
            input and one output, the shapes differ, or a member's last layer does not
            show what it returns.
    """

    def __init__(
        self,
        members: Sequence[keras.Model],
        *,
        outputs: Outputs | Sequence[Outputs | None] | None = None,
        votes: Votes = "mean_probability",
        **kwargs: Any,
    ) -> None:
        check_choice("votes", votes, get_args(Votes))
        # Whatever the global policy: members get the images in float32.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.members = _checked_members(members)
        self.votes = votes
        self.member_outputs = outputs
        self._derived = Derived(self.members, outputs)
        self.built = True

    @property
    def logits_models(self) -> Sequence[keras.Model]:
        """Each member up to its logits; they share the members' weights."""
        return self._current().logits_models

    @property
    def programs(self) -> ProgramCache:
        """What is compiled for attacks on this ensemble.

        It has room for 32 programs and eight more per member; those used least recently
        are dropped. All are when a member was changed otherwise than in its weights.
        """
        return self._current().programs

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if the members are subclassed and do not show it."""
        return self._current().num_classes

    @property
    def first_alike(self) -> Sequence[int | None]:
        """For each member the index of the first that differs only in weights.

        See `alike.first_alike`.
        """
        return self._current().first_alike

    def _current(self) -> Derived:
        """Return what follows from the members as they are now."""
        if not self._derived.is_current():
            self._derived = Derived(self.members, self.member_outputs)
            self.train_function = self.test_function = self.predict_function = None
        return self._derived

    def make_train_function(self, force: bool = False) -> Any:
        """Compile a step of `fit`."""
        self._current()
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        """Compile a step of `evaluate`."""
        self._current()
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Compile a step of `predict`."""
        self._current()
        return super().make_predict_function(force)

    def first(self, count: int) -> "Ensemble":
        """Return the ensemble of the first members, which it shares.

        Args:
            count: how many, from 1 to `len(ensemble)`.
        """
        outputs = self.member_outputs
        if outputs is not None and not isinstance(outputs, str):
            outputs = outputs[:count]
        return Ensemble(self.members[:count], outputs=outputs, votes=self.votes)

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
        models = self.logits_models
        if index is not None:
            return ops.cast(models[index](x, training=training), "float32")
        logits = [model(x, training=training) for model in models]
        return ops.stack([ops.cast(tensor, "float32") for tensor in logits])

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Return the probabilities of the ensemble."""
        return vote(self.member_logits(inputs, training=training), self.votes)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(n, num_classes)`."""
        return self.logits_models[0].compute_output_shape(input_shape)

    def build(self, input_shape: Shape) -> None:
        """Do nothing: the members are built."""

    def export(self, filepath: str, *args: Any, **kwargs: Any) -> None:
        """Export the ensemble as `keras.Model.export` does, for images in float32."""
        shapes = (getattr(member, "input_shape", None) for member in self.members)
        if shape := next(filter(None, shapes), None):
            # Otherwise Keras wants a call that is not by `predict`.
            signature = [keras.InputSpec(dtype="float32", shape=shape)]
            kwargs.setdefault("input_signature", signature)
        super().export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, including the members.

        Raises:
            ValueError: if members share layers. Keras would save the weights of these
                once, and load no model that has them twice.
        """
        _check_nothing_is_shared(self.members)
        members = [keras.saving.serialize_keras_object(m) for m in self.members]
        return {
            "members": members,
            "outputs": self.member_outputs,
            "votes": self.votes,
            "name": self.name,
        }

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


def check_images(ensemble: Ensemble, x: Tensor) -> None:
    """Raise a `ValueError` unless the members take images of the shape of `x`."""
    for i, model in enumerate(ensemble.logits_models):
        shape = getattr(model, "input_shape", None)  # subclassed models have none
        if shape and not compatible(tuple(x.shape)[1:], shape[1:]):
            raise ValueError(
                f"`x` must be of shape {shape}, which members[{i}] takes. Received: "
                f"shape {tuple(x.shape)}"
            )


def _checked_members(members: Sequence[keras.Model]) -> tuple[keras.Model, ...]:
    if isinstance(members, keras.Model) or not isinstance(members, Iterable):
        raise ValueError(
            "`members` must be a list of models, also for a single one: "
            f"Ensemble([model]). Received: {members!r}"
        )
    members = tuple(members)
    if not members:
        raise ValueError("`members` must hold at least one model. Received: none")
    return members


def _check_nothing_is_shared(members: Sequence[keras.Model]) -> None:
    owners: dict[keras.Layer, keras.Model] = {}
    for member in members:
        for layer in member._flatten_layers():
            owner = owners.setdefault(layer, member)
            if owner is not member and layer.variables:
                raise ValueError(
                    "`members` must not share layers for an ensemble to be saved as a "
                    f"whole: Keras could not load it. Received: {owner.name!r} and "
                    f"{member.name!r}, which share {layer.name!r}. Save the weights "
                    "with `save_weights`, or each member by itself"
                )
