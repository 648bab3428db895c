"""The atlas: Rand. Ini. of Table 2 under many answers to the paper's open points.

The rule by which a reading is chosen from it stands in docs/protocol.md ("How a reading
is chosen"); `advens.strauss2017.atlas_choice` applies it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, get_args

from advens.attacks.threat import GradientLoss, LabelMode
from advens.evaluation.outcomes import count_lost_classes
from advens.models.architecture import Logits
from advens.strauss2017 import atlas_choice, columns, constants
from advens.strauss2017.cells import AtlasPoint, Cell
from advens.strauss2017.columns import Column
from advens.strauss2017.experiments import answers
from advens.strauss2017.run import Run
from advens.strauss2017.settings import paper_attacks

ROW: Final = "rand_ini"
LOSSES: Final[tuple[GradientLoss, ...]] = (columns.PAPER_LOSS, "exact")

# How many members each reading has at first, and how many new ones the best three.
DRAWS: Final = {"digits": (5, 10), "mnist": (5, 10), "cifar10": (2, 5)}

_PAPER: Final = tuple(c for c in columns.TABLE2 if c.place is not None)
_CLEAN: Final = tuple(column for column in _PAPER if not column.gradient)
_ATTACKED: Final = tuple(column for column in _PAPER if column.gradient)


@dataclasses.dataclass(frozen=True)
class Training:
    """Answers to the open points of the training.

    Attributes:
        logits: see `Architecture`.
        batch_size: see `Recipe`.
        optimizer: see `Recipe`.
        learning_rate: see `Recipe`.
        momentum: see `Recipe`.
        decay: see `Recipe`.
    """

    logits: Logits
    batch_size: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float | None = None
    decay: float | None = None


TRAINING: Final = tuple(field.name for field in dataclasses.fields(Training))


def sgd(dataset: str, logits: Logits, batch_size: int) -> Training:
    """Return SGD as Keras's examples of 2017 used it: decay = rate / epochs."""
    rate = 0.01
    decay = rate / constants.EPOCHS[dataset]
    return Training(logits, batch_size, "sgd", rate, 0.9, decay)


def first_stage(dataset: str) -> list[Training]:
    """Return the trainings that the rule starts with."""
    if dataset == "cifar10":
        plain = [Training(logits, n) for logits in ("linear", "relu") for n in (64, 32)]
        return plain + [sgd(dataset, t.logits, t.batch_size) for t in plain]
    return [Training(logits, n) for logits in get_args(Logits) for n in (32, 64, 128)]


def second_stage(dataset: str, training: Training) -> list[Training]:
    """Return the other optimizers, with a training's logits and batch size.

    CIFAR-10's first stage has all its optimizers.
    """
    if dataset == "cifar10":
        return []
    network = training.logits, training.batch_size
    return [
        Training(*network, "adadelta", 1.0),
        Training(*network, "rmsprop", 1e-3),
        sgd(dataset, *network),
    ]


def measure_atlas(
    run: Run, *, after_reading: Callable[[list[AtlasPoint]], None]
) -> list[AtlasPoint]:
    """Train and attack every reading of the rule, stage after stage.

    Where the paper has no numbers there is only the first stage, as nothing is best.

    Args:
        run: see `measure_reading`; its number of members gives way to the rule's.
        after_reading: called with all points so far, whenever a reading is done.
    """
    name = run.settings.dataset
    num_members, num_new = DRAWS[name]
    # CIFAR-10's images are always clipped: it changes nothing there.
    boxes = (True,) if name == "cifar10" else (False, True)
    points: list[AtlasPoint] = []

    def measure(run: Run, trainings: Sequence[Training], boxes: Sequence[bool]) -> None:
        # Box by box: readings that differ in their training share compiled attacks.
        for box in boxes:
            for training in trainings:
                points.extend(measure_reading(run, training, box))
                after_reading(points)

    def best(count: int) -> list[tuple[Training, bool]]:
        readings = atlas_choice.distances(atlas_choice.atlas_frame(points))
        return [
            (Training(*(row[name] for name in TRAINING)), row["box"])
            for row in readings[:count]
        ]

    first = dataclasses.replace(run, num_members=num_members)
    measure(first, first_stage(name), boxes)
    if run.dataset.name not in constants.TABLE2:
        return points
    for training, box in best(2):
        measure(first, second_stage(name, training), [box])
    second = dataclasses.replace(run, num_members=num_new, seed=run.seed + 1)
    for training, box in best(atlas_choice.NUM_REPEATED):
        measure(second, [training], [box])
    return points


def measure_reading(run: Run, training: Training, box: bool) -> list[AtlasPoint]:
    """Train Rand. Ini. in a reading of the paper, and attack it.

    Args:
        run: the run; its dataset, store, seed, number of members, epochs and precision
            count.
        training: how members are trained.
        box: see `Attack`.

    Returns:
        A point for each loss, attack, column of the paper's Table 2 and labels.
    """
    changes: dict[str, Any] = dataclasses.asdict(training)
    settings = dataclasses.replace(run.settings, **changes)
    attacks = paper_attacks(settings.dataset, box=box)
    run = dataclasses.replace(run, settings=settings, attacks=attacks)
    members = run.members(ROW)
    run.train(ROW, members)
    columns_read = {
        (loss, labels): [
            dataclasses.replace(column, labels=labels, loss=loss)
            for column in _ATTACKED
        ]
        for loss in LOSSES
        for labels in get_args(LabelMode)
    }
    every = [column for read in columns_read.values() for column in read]
    threats = columns.threats([*_CLEAN, *every], attacks, run.num_members)
    by_threat = run.attack(ROW, members, threats)
    clean = by_threat[None]["none"].members
    reading = {
        **changes,
        "box": box,
        "num_members": run.num_members,
        "seed": run.seed,
        "restarts": sum(filter(None, run.restarts[ROW])),
        "lost_classes": sum(count_lost_classes(clean, run.dataset.y_test)),
    }
    name = "-".join(map(str, [*changes.values(), "box" if box else "no box", run.seed]))

    def point(
        column: Column, attack: str, loss: GradientLoss, labels: LabelMode | Literal[""]
    ) -> AtlasPoint:
        correct, zero = answers(column, attack, by_threat, num_grad1=run.num_members)
        cell = Cell(
            run.dataset.name,
            attack,
            name,
            "-".join(filter(None, (column.name, labels, loss))),
            correct,
            zero if column.gradient else None,
        )
        return AtlasPoint(reading, loss, attack, column.name, labels, cell)

    points = []
    for loss in LOSSES:
        points += [point(column, "FGSM", loss, "") for column in _CLEAN]
        points += [
            point(column, attack.name, loss, labels)
            for attack in attacks
            for labels in get_args(LabelMode)
            for column in columns_read[loss, labels]
        ]
    return points
