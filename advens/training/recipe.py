"""How a member is trained, as data: its network, its training set, its training.

Nothing here needs Keras.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from advens.checks import check_at_least, check_choices, check_count, check_positive
from advens.defenses.settings import AdversarialSettings, DistillationSettings
from advens.models.architecture import Architecture, KerasArchitecture
from advens.storage.addresses import Spec, digest

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that determines a member but for its seed and the data set.

    Attributes:
        architecture: the network.
        epochs: epochs of training; the last weights count (docs/protocol.md, point 3).
        batch_size: images per step.
        optimizer: name of a Keras optimizer.
        learning_rate: its learning rate, at the start if there is a decay.
        precision: the Keras dtype policy of the training. Attacks are always float32.
        bootstrap: whether it trains on a bootstrap replicate (Section 3 (iii)).
        noise_std: standard deviation of the Gaussian noise on the training images, in
            units of the [0, 1] range (Section 3 (iv)); 0 for none.
        adversarial: the settings of adversarial training; None for plain training.
        distillation: the settings of distillation, if it trains on the smoothed labels
            of a teacher. The teacher has the same recipe without distillation and the
            same training set.
        momentum: the optimizer's momentum, in [0, 1); None for the optimizer's default.
        decay: Keras's `decay` of 2017, >= 0: at each step, counted from 0, the learning
            rate is learning_rate / (1 + decay * step). None for a constant rate.

    Raises:
        ValueError: if a value is out of range.
    """

    architecture: Architecture | KerasArchitecture
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    precision: Precision = "float32"
    bootstrap: bool = False
    noise_std: float = 0.0
    adversarial: AdversarialSettings | None = None
    distillation: DistillationSettings | None = None
    momentum: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_positive("learning_rate", self.learning_rate)
        check_at_least("noise_std", self.noise_std, 0)
        check_choices(self, precision=Precision)
        check_schedule(self.momentum, self.decay)
        own = isinstance(self.architecture, KerasArchitecture)
        if own and self.precision != "float32":
            raise ValueError(
                "`precision` must be float32 for a network of one's own. Received: "
                f"precision={self.precision!r}"
            )


def check_schedule(momentum: float | None, decay: float | None) -> None:
    """Raise a `ValueError` if an option of an optimizer is out of range."""
    if momentum is not None and not 0 <= momentum < 1:
        raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
    if decay is not None:
        check_at_least("decay", decay, 0)


@dataclasses.dataclass(frozen=True)
class Member:
    """A network, trained or to be trained: everything that determines its weights.

    Attributes:
        recipe: how it is trained.
        seed: determines its initial weights, dropout masks, training set and the order
            of its batches.
        train_checksum: of the training part of the data, see `Dataset.checksums`.
        backend: name of the Keras backend that trains it.
    """

    recipe: Recipe
    seed: int
    train_checksum: str
    backend: str

    @property
    def spec(self) -> Spec:
        """Its address in the store. An option that is None is not part of it."""
        recipe = dataclasses.asdict(self.recipe)
        return {
            "recipe": {k: v for k, v in recipe.items() if v is not None},
            "seed": self.seed,
            "train": self.train_checksum,
            "backend": self.backend,
        }

    @property
    def digest(self) -> str:
        """The name of its file in the store."""
        return digest(self.spec)

    @property
    def teacher(self) -> "Member | None":
        """The member that its labels come from, if it is distilled.

        It has the same seed, and so the same training set.
        """
        if self.recipe.distillation is None:
            return None
        return dataclasses.replace(
            self, recipe=dataclasses.replace(self.recipe, distillation=None)
        )


def teachers(members: Sequence[Member]) -> list[Member]:
    """Return the teachers of those members that are distilled."""
    return [member.teacher for member in members if member.teacher]


def trainer_key(recipe: Recipe) -> Recipe:
    """Return what the recipes of members that share a trainer have in common.

    Such members may differ in their number of epochs, in the bootstrap and in the
    strength of their noise. Either all of them have noise or none.
    """
    return dataclasses.replace(
        recipe, epochs=1, bootstrap=False, noise_std=float(recipe.noise_std > 0)
    )
