"""A member on its way: its state, and how a checkpoint in the store holds it."""

import dataclasses
import os

import numpy as np

from advens.arrays import Floats, Images, Ints
from advens.storage.store import Store
from advens.training import samples
from advens.training.recipe import Member

KIND = "member"
_RESTARTS = "restarts"  # a kind of artefact, too

# The values of a trainer's variables, by name; see `Trainer.variables`.
State = dict[str, Floats]


@dataclasses.dataclass
class MemberInTraining:
    """A member, its training set and the state of its training.

    Attributes:
        member: the member.
        x: `(n, h, w, c)` float32, its images, with its noise.
        y: `(n, ...)`, its labels.
        state: its weights, optimizer and dropout seeds, see `Trainer.start`.
        attempt: how often it was started again.
        epoch: how many epochs of this attempt are done.
        alive: False once it has died, see `Trainer.fit`.
    """

    member: Member
    x: Images
    y: np.ndarray
    state: State
    attempt: int = 0
    epoch: int = 0
    alive: bool = True

    @property
    def is_running(self) -> bool:
        """Whether there are epochs left."""
        return self.alive and self.epoch < self.member.recipe.epochs

    def rows(self, epoch: int) -> Ints:
        """Return the rows of `x`, `(n,)`, in the order in which an epoch visits them.

        Args:
            epoch: its number, from 0.
        """
        recipe = self.member.recipe
        return samples.epoch_rows(
            self.member.seed, epoch, len(self.x), bootstrap=recipe.bootstrap
        )


def save_checkpoint(training: MemberInTraining, store: Store) -> None:
    """Write a member's state after an epoch."""
    member = training.member
    step = training.attempt * member.recipe.epochs + training.epoch
    arrays = {**training.state, "attempt": np.array(training.attempt)}
    store.save_checkpoint(KIND, member.spec, step, arrays)


def load_checkpoint(member: Member, store: Store) -> tuple[State, int, int] | None:
    """Return the state, attempt and epoch of a member's newest checkpoint, if any."""
    checkpoint = store.load_checkpoint(KIND, member.spec)
    if checkpoint is None:
        return None
    step, state = checkpoint
    del state["attempt"]  # the step tells it, too
    return state, *_attempt_and_epoch(step, member)


def epochs_done(member: Member, store: Store) -> int:
    """Return how many epochs of a member are done. Only file names are read."""
    if store.has(KIND, member.spec):
        return member.recipe.epochs
    step = store.steps_done(KIND, member.spec)
    return _attempt_and_epoch(step, member)[1] if step else 0


def restarts(member: Member, store: Store) -> int | None:
    """Return how often a member was started again, see `Trainer.is_alive`.

    None if the store holds neither the member nor what `export_restarts` left of it.
    """
    for kind in (KIND, _RESTARTS):
        if (arrays := store.load(kind, member.spec)) is not None:
            return int(arrays.get("attempt", 0))
    return None


def export_restarts(
    member: Member, store: Store, directory: str | os.PathLike[str]
) -> None:
    """Copy how often a member was started again, for a store without the member."""
    if (count := restarts(member, store)) is not None:
        store.save(_RESTARTS, member.spec, {"attempt": np.array(count)})
        store.export(_RESTARTS, member.spec, directory)


def _attempt_and_epoch(step: int, member: Member) -> tuple[int, int]:
    """Return the attempt and its epoch, counted from 1, of a checkpoint's step."""
    attempt, epoch = divmod(step - 1, member.recipe.epochs)
    return attempt, epoch + 1
