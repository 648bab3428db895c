"""The rows of Tables 2 and 4, each a composition of parts.

A row is written as its parts, joined by `+`: `"bagging"`, `"bagging+adv_train"`. No
code knows a combination by name.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Final

from advens.defenses.settings import AdversarialSettings, DistillationSettings
from advens.models.architecture import Architecture, KerasArchitecture
from advens.strauss2017 import constants, networks
from advens.strauss2017.settings import Settings
from advens.training.recipe import Recipe

Changes = Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Part:
    """An ensemble method or a defence.

    Attributes:
        label: its name in the paper's tables.
        changes: returns what it changes in the recipe of a member, given the settings
            and the member's number.
        is_ensemble: whether it makes an ensemble. A row without such a part stands for
            single networks.
        cost: how many times as long a member trains with it.
    """

    label: str
    changes: Callable[[Settings, int], Changes]
    is_ensemble: bool = True
    cost: float = 1.0


PARTS: Final[Mapping[str, Part]] = {
    # Section 3 (i) to (iv).
    "rand_ini": Part("Rand. Ini.", lambda settings, index: {}),
    "mix_mod": Part(
        "Mix. Mod.",
        lambda settings, index: {"architecture": _mixed(settings, index)},
    ),
    "bagging": Part("Bagging", lambda settings, index: {"bootstrap": True}),
    "gauss_noise": Part(
        "Gauss Noise", lambda settings, index: {"noise_std": settings.noise_std}
    ),
    # Section 4, "Comparison with other methods".
    "adv_train": Part(
        "Adv. Train.",
        lambda settings, index: {
            # The loss: docs/protocol.md, point 12.
            "adversarial": AdversarialSettings(
                settings.adv_eps,
                settings.rho,
                box=settings.adv_box,
                labels=settings.adv_labels,
                loss="logits",
            )
        },
        is_ensemble=False,
        cost=3.0,  # two more passes, one of them for the perturbation
    ),
    "def_dist": Part(
        "Def. Dist.",
        lambda settings, index: {
            "distillation": DistillationSettings(
                settings.temperature, settings.distillation
            )
        },
        is_ensemble=False,
        cost=2.0,  # a teacher and its student
    ),
}

TABLE2_ROWS: Final = tuple(name for name, part in PARTS.items() if part.is_ensemble)
TABLE4_ROWS: Final = tuple(constants.TABLE4["mnist"])


def parts(row: str) -> list[Part]:
    """Return the parts of a row.

    Raises:
        ValueError: if a part is unknown or stands twice.
    """
    names = row.split("+")
    if set(names) - set(PARTS) or len(set(names)) < len(names):
        raise ValueError(
            f"A row must be one or more of {', '.join(PARTS)}, joined by +, each once. "
            f"Received: {row!r}"
        )
    return [PARTS[name] for name in names]


def label(row: str) -> str:
    """Return a row's name in the paper's tables, such as `"Rand. Ini."`."""
    return " + ".join(part.label for part in parts(row))


def is_ensemble(row: str) -> bool:
    """Return whether a row is an ensemble. Otherwise it is of single networks."""
    return any(part.is_ensemble for part in parts(row))


def cost(row: str) -> float:
    """Return about how long a member of a row trains, in trainings without defence."""
    return math.prod(part.cost for part in parts(row))


def recipe(row: str, settings: Settings, index: int) -> Recipe:
    """Return the recipe of a member of a row.

    Args:
        row: parts joined by `+`.
        settings: how members are trained.
        index: the member's number, from 0.
    """
    plain = Recipe(
        architecture=_network(settings),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        precision=settings.precision,
        momentum=settings.momentum,
        decay=settings.decay,
    )
    changes: dict[str, object] = {}
    for part in parts(row):
        changes |= part.changes(settings, index)
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def _network(settings: Settings) -> Architecture | KerasArchitecture:
    if settings.network:
        return settings.network.architecture
    return networks.base(
        settings.dataset,
        logits=settings.logits,
        input_shape=settings.input_shape,
        num_classes=settings.num_classes,
    )


def _mixed(settings: Settings, index: int) -> Architecture:
    network = _network(settings)
    if isinstance(network, KerasArchitecture):
        raise ValueError(
            f"{PARTS['mix_mod'].label} varies the paper's network and has no variants "
            "of another one: leave out the row mix_mod"
        )
    blocks = networks.mixed(settings.dataset, index).blocks
    return dataclasses.replace(network, blocks=blocks)
