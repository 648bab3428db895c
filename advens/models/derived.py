"""What follows from the members of an ensemble, until they are changed."""

import functools
from collections.abc import Sequence

import keras

from advens.backend.program_cache import ProgramCache
from advens.models.alike import first_alike
from advens.models.changes import Snapshot
from advens.models.logits import Outputs, Shape, logits_model


class Derived:
    """What follows from the members of an ensemble as they are now.

    Keras does not track it: its weights are the members'.
    """

    def __init__(
        self,
        members: tuple[keras.Model, ...],
        outputs: Outputs | Sequence[Outputs | None] | None,
    ) -> None:
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
        self.logits_models = tuple(
            logits_model(member, output, name=f"members[{i}] ({_name(member)})")
            for i, (member, output) in enumerate(zip(members, per_member, strict=True))
        )
        self.snapshots = [Snapshot(member) for member in members]
        self.num_classes = _checked_classes(self.logits_models)
        self.programs = ProgramCache(32 + 8 * len(members))

    @functools.cached_property
    def first_alike(self) -> list[int | None]:
        """See `alike.first_alike`."""
        return first_alike(self.logits_models)

    def is_current(self) -> bool:
        """Return whether no member was changed but for its weights' values."""
        return all(snapshot.is_current() for snapshot in self.snapshots)


def compatible(shape: Shape, other: Shape) -> bool:
    """Return whether some images have both shapes, in which None is any size."""
    return len(shape) == len(other) and all(
        a == b or a is None or b is None for a, b in zip(shape, other, strict=True)
    )


def _checked_classes(models: Sequence[keras.Model]) -> int | None:
    """Return the number of classes; all models must agree on it and on the images.

    Args:
        models: models up to their logits. Those of subclassed members have no shapes.
    """
    shapes = {
        i: (model.input_shape, model.output_shape)
        for i, model in enumerate(models)
        if hasattr(model, "output_shape")
    }
    if not shapes:
        return None
    first, (images, logits) = next(iter(shapes.items()))
    for i, (other_images, other_logits) in shapes.items():
        if logits[-1] != other_logits[-1] or not compatible(images, other_images):
            raise ValueError(
                "`members` must have the same input shape and number of classes. "
                f"Received: members[{first}] maps {images} to logits {logits}, "
                f"members[{i}] maps {other_images} to logits {other_logits}"
            )
    return logits[-1]


def _name(member: object) -> str:
    return repr(getattr(member, "name", member))
