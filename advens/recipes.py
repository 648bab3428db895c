"""How a member is trained, as data: its network, its training set, its training.

A row of a table is a composition of parts, written `"bagging"` or
`"bagging+adv_train"`. No code knows a combination by name.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, get_args

import keras

from advens import models, paper
from advens.adversarial_training import Adversarial
from advens.distillation import Distillation, Formula
from advens.store import Spec, digest

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that determines a member, its seed and the data set aside.

    Attributes:
        architecture: the network.
        epochs: epochs of training; the last weights count (docs/protocol.md, point 3).
        batch_size: images per step.
        optimizer: name of a Keras optimizer.
        learning_rate: its constant learning rate.
        precision: the Keras dtype policy of the training. Attacks are always float32.
        bootstrap: train on a bootstrap replicate (Section 3 (iii)).
        noise_std: standard deviation of the Gaussian noise on the training images, in
            units of the [0, 1] range (Section 3 (iv)); 0 for none.
        adversarial: train adversarially.
        distillation: train on the smoothed labels of a teacher, which has the same
            recipe without distillation and the same training set.
    """

    architecture: models.Architecture
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    precision: Precision = "float32"
    bootstrap: bool = False
    noise_std: float = 0.0
    adversarial: Adversarial | None = None
    distillation: Distillation | None = None


@dataclasses.dataclass(frozen=True)
class Member:
    """A network to be trained or trained: what determines its weights.

    Attributes:
        recipe: how it is trained.
        seed: of its initial weights, dropout masks, training set and order of batches.
        train_checksum: of the training part of the data, see `Dataset.checksums`.
    """

    recipe: Recipe
    seed: int
    train_checksum: str

    @property
    def spec(self) -> Spec:
        """What the store addresses it by. A new option of None changes no address."""
        recipe = dataclasses.asdict(self.recipe)
        return {
            "recipe": {k: v for k, v in recipe.items() if v is not None},
            "seed": self.seed,
            "train": self.train_checksum,
            "backend": keras.backend.backend(),
        }

    @property
    def digest(self) -> str:
        """The name of its artefact."""
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user may change of the paper's recipes. None stands for the paper's value.

    Attributes:
        dataset: name of the data set.
        epochs: see `Recipe`.
        batch_size: see `Recipe`.
        optimizer: see `Recipe`.
        learning_rate: see `Recipe`.
        precision: see `Recipe`.
        noise_std: that of `gauss_noise`.
        logits: what stands under the softmax; see `models.Architecture`.
        adv_eps: `eps` of adversarial training.
        rho: see `adversarial_training.Adversarial`.
        temperature: see `distillation.Distillation`.
        distillation: its formula; see `distillation.Distillation`.

    Raises:
        ValueError: if a value is out of range.
    """

    dataset: str
    epochs: int | None = None
    batch_size: int = 64  # docs/protocol.md, point 2
    optimizer: str = "adam"  # docs/protocol.md, point 1
    learning_rate: float = 1e-3  # docs/protocol.md, point 1
    precision: Precision = "float32"
    noise_std: float | None = None
    logits: models.Logits = "relu"  # docs/protocol.md, point 5
    adv_eps: float | None = None
    rho: float = paper.RHO
    temperature: float = paper.TEMPERATURE
    distillation: Formula = "printed"

    def __post_init__(self) -> None:
        if self.dataset not in paper.EPOCHS:
            raise _error("dataset", f"one of {tuple(paper.EPOCHS)}", self.dataset)
        defaults = {
            "epochs": paper.EPOCHS[self.dataset],
            "noise_std": paper.NOISE_STD[self.dataset],
            # docs/protocol.md, point 19
            "adv_eps": paper.ATTACKS[self.dataset]["FGSM"]["eps"],
        }
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise _error(name, ">= 1", getattr(self, name))
        if not 0 < self.learning_rate < float("inf"):
            raise _error("learning_rate", "> 0 and finite", self.learning_rate)
        if not 0 <= self.noise_std < float("inf"):  # type: ignore[operator]
            raise _error("noise_std", ">= 0 and finite", self.noise_std)
        for name, choices in (("precision", Precision), ("logits", models.Logits)):
            if getattr(self, name) not in get_args(choices):
                raise _error(name, f"one of {get_args(choices)}", getattr(self, name))
        Adversarial(self.adv_eps, self.rho)  # type: ignore[arg-type]
        Distillation(self.temperature, self.distillation)


# What a part changes in the recipe of member `index`.
_PARTS: Final[dict[str, Callable[[Settings, int], dict[str, Any]]]] = {
    "rand_ini": lambda settings, index: {},
    "mix_mod": lambda settings, index: {
        "architecture": models.mixed(settings.dataset, index, logits=settings.logits)
    },
    "bagging": lambda settings, index: {"bootstrap": True},
    "gauss_noise": lambda settings, index: {"noise_std": settings.noise_std},
    "adv_train": lambda settings, index: {
        # The loss: docs/protocol.md, point 12.
        "adversarial": Adversarial(settings.adv_eps, settings.rho, loss="logits")  # type: ignore
    },
    "def_dist": lambda settings, index: {
        "distillation": Distillation(settings.temperature, settings.distillation)
    },
}


def recipe(row: str, settings: Settings, index: int) -> Recipe:
    """Return the recipe of member `index` of a row.

    Args:
        row: parts joined by `+`; see `parts`.
        settings: what differs from the paper.
        index: the member's number, from 0.
    """
    base = Recipe(
        architecture=models.base(settings.dataset, logits=settings.logits),
        epochs=settings.epochs,  # type: ignore[arg-type]
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        precision=settings.precision,
    )
    changes = [_PARTS[part](settings, index) for part in parts(row)]
    return dataclasses.replace(base, **{k: v for c in changes for k, v in c.items()})


def parts(row: str) -> list[str]:
    """Split a row into its parts and check them.

    Raises:
        ValueError: if a part is unknown or stands twice.
    """
    found = row.split("+")
    if unknown := [part for part in found if part not in _PARTS]:
        raise _error("row", f"of {tuple(_PARTS)}, joined by '+'", unknown[0])
    if len(set(found)) < len(found):
        raise _error("row", "of different parts", row)
    return found


def label(row: str) -> str:
    """Return a row's name as the paper's tables have it, e.g. `"Rand. Ini."`."""
    names = {**paper.METHODS, **paper.DEFENSES}
    return " + ".join(names[part] for part in parts(row))


def is_ensemble(row: str) -> bool:
    """Say whether a row is an ensemble, or single networks with a defence alone."""
    return any(part in paper.METHODS for part in parts(row))


def _error(name: str, right: str, received: Any) -> ValueError:
    return ValueError(f"`{name}` must be {right}. Received: {name}={received!r}")
