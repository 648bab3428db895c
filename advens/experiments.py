"""The rows of a table, end to end: train what is missing, attack what is missing."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from advens import paper, recipes, training
from advens.attacks import Attack, paper_attacks
from advens.datasets import Dataset
from advens.ensemble import Ensemble
from advens.evaluation import Threat, stored_outcomes
from advens.gradients import Loss
from advens.outcomes import Outcomes
from advens.pipelines import member_seeds
from advens.progress import Bars
from advens.recipes import Member, Settings, teachers
from advens.store import Store
from advens.tables import Cell
from advens.trainer import make_optimizer

# The loss of the paper's columns, and that of those which end so: docs/protocol.md,
# point 12.
PAPER_LOSS: Final = "logits"
LOSSES: Final[dict[str, Loss]] = {"": PAPER_LOSS, "_exact": "exact"}
# Columns of Table 2, by loss, in which the whole ensemble's gradient is followed. That
# of the ensemble's own loss is exact with either.
ENSEMBLE_THREATS: Final = {
    PAPER_LOSS: {
        "grad2_ensemble": Threat("mean_member", loss=PAPER_LOSS),
        "grad2_ensemble_repredicted": Threat(
            "mean_member", labels="repredicted", loss=PAPER_LOSS
        ),
        "ensemble_gradient": Threat("ensemble", loss=PAPER_LOSS),
    },
    "exact": {"grad2_ensemble_exact": Threat("mean_member")},
}


@dataclasses.dataclass
class Run:
    """One run of a script: its data, its settings, its store.

    Attributes:
        dataset: the data.
        settings: how members are trained.
        attacks: FGSM and BIM, with their budgets.
        store: where members and outcomes are kept.
        num_members: classifiers in an ensemble, >= 1.
        seed: the run seed, from which each member's is drawn; >= 0.
        n_jobs: processes that train, >= 1; see `training.default_jobs`.
        stack: see `training.fit_members`.
        bars: where progress is shown.
        seconds: seconds of this run a stage; filled in as it goes.
        restarts: how often each member of a row was started again; likewise.
        lost_classes: how many classes each member of a row recognises less often than
            guessing would, on the test images without attack; likewise.
    """

    dataset: Dataset
    settings: Settings
    attacks: Sequence[Attack]
    store: Store
    num_members: int = paper.NUM_MEMBERS
    seed: int = 0
    n_jobs: int = dataclasses.field(default_factory=training.default_jobs)
    stack: int | None = None
    bars: Bars = dataclasses.field(default_factory=Bars)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    restarts: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    lost_classes: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, low in (("num_members", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(
                    f"`{name}` must be >= {low}. Received: {name}={getattr(self, name)}"
                )
        training.check_jobs(self.n_jobs, self.stack)
        make_optimizer(self.settings.optimizer, self.settings.learning_rate)
        # One of each architecture: what is compiled for it serves the next row too.
        self._ensembles: dict[tuple, tuple[Sequence[Member], Ensemble]] = {}

    @property
    def member_seeds(self) -> list[int]:
        """The seed of each member."""
        return member_seeds(self.seed, self.num_members)

    def members(self, row: str, count: int | None = None) -> list[Member]:
        """Return the members of a row, or the first `count`, trained or not."""
        return [
            Member(
                recipes.recipe(row, self.settings, index),
                seed,
                self.dataset.checksums["train"],
            )
            for index, seed in enumerate(
                member_seeds(self.seed, self.num_members if count is None else count)
            )
        ]

    def train(self, row: str, members: Sequence[Member]) -> None:
        """Train what the store lacks of the members of a row."""
        start = time.monotonic()
        shown = [*teachers(members), *members]
        with self.bars.training(recipes.label(row), shown, self.store):
            training.fit_members(
                members,
                self.dataset,
                self.store,
                n_jobs=self.n_jobs,
                stack=self.stack,
            )
        self.restarts[row] = [training.restarts(m, self.store) for m in members]
        self.lost_classes.pop(row, None)
        self._took(f"train {row}", start)

    def outcomes(
        self,
        row: str,
        members: Sequence[Member],
        threats: Sequence[Threat | None],
        attacks: Sequence[Attack] | None = None,
    ) -> list[dict[str, Outcomes]]:
        """Attack the ensemble of trained members.

        Args:
            row: to which they belong.
            members: one or more.
            threats: the gradients that the attacks follow; None for no attack.
            attacks: None for the run's.

        Returns:
            For each threat, the outcomes by the attack's name; by `"none"` without one.
        """
        start = time.monotonic()
        attacks = self.attacks if attacks is None else attacks
        address = {
            "members": [member.digest for member in members],
            "test": self.dataset.checksums["test"],
        }
        found = []
        images = len(self.dataset.x_test) * len(threats)
        with self.bars.attacks(recipes.label(row), images) as advance:
            for threat in threats:
                followed = attacks if threat else ()
                outcomes = stored_outcomes(
                    self.store,
                    address,
                    lambda: self._load(members),
                    self.dataset.x_test,
                    self.dataset.y_test,
                    threat=threat,
                    attacks=followed,
                    on_images=advance,
                )
                names = [attack.name for attack in followed] or ["none"]
                found.append(dict(zip(names, outcomes, strict=True)))
                if threat is None:
                    lost = _lost_classes(outcomes[0].members, self.dataset.y_test)
                    self.lost_classes.setdefault(row, []).extend(lost)
        self._took(f"attack {row}", start)
        return found

    def deviations(self) -> list[str]:
        """Say in what this run is not the paper's, as far as numbers are concerned."""
        name = self.settings.dataset
        usual = _numbers(Settings(name), paper.NUM_MEMBERS, paper_attacks(name))
        ours = _numbers(self.settings, self.num_members, self.attacks)
        found = [f"{k}={v}" for k, v in ours.items() if v != usual.get(k)]
        for part, size in zip(("train", "test"), paper.NUM_IMAGES[name], strict=True):
            count = len(getattr(self.dataset, f"y_{part}"))
            if count != size:
                found.append(f"{part}_images={count} of {size}")
        return found

    def _load(self, members: Sequence[Member]) -> Ensemble:
        key = tuple(member.recipe.architecture for member in members)
        loaded, ensemble = self._ensembles.get(key, ((), None))
        if ensemble is None or loaded != members:
            ensemble = training.load_ensemble(members, self.store, into=ensemble)
            self._ensembles[key] = members, ensemble
        return ensemble

    def _took(self, stage: str, start: float) -> None:
        seconds = self.seconds.get(stage, 0) + time.monotonic() - start
        self.seconds[stage] = round(seconds, 1)


def _lost_classes(correct: np.ndarray, y: np.ndarray) -> list[int]:
    recalls = np.stack([correct[:, y == label].mean(axis=1) for label in np.unique(y)])
    return np.sum(recalls < 1 / len(recalls), axis=0).tolist()


def _numbers(
    settings: Settings, num_members: int, attacks: Sequence[Attack]
) -> dict[str, Any]:
    numbers = {**dataclasses.asdict(settings), "num_members": num_members}
    for attack in attacks:
        for name, value in dataclasses.asdict(attack).items():
            numbers[f"{attack.name} {name}"] = value
    return numbers


def table2_threats(num_members: int) -> dict[str, Threat]:
    """Return the gradients that the attacks of Table 2 follow, by name."""
    threats = {}
    for suffix, loss in LOSSES.items():
        for i in range(num_members):
            threats[f"grad1_{i}{suffix}"] = Threat("member", i, loss=loss)
        threats |= ENSEMBLE_THREATS[loss]
    return threats


def table2(run: Run, methods: Sequence[str]) -> list[Cell]:
    """Train the ensembles of Table 2, attack them and return the table's cells."""
    cells = []
    indices = range(run.num_members)
    threats = [*table2_threats(run.num_members).values()]
    for row in methods:
        members = run.members(row)
        run.train(row, members)
        clean, *attacked = run.outcomes(row, members, [None, *threats])
        none = clean["none"]
        found = dict(zip(threats, attacked, strict=True))
        for attack in run.attacks:
            cell = functools.partial(Cell, run.settings.dataset, attack.name, row)
            cells += [
                cell("no_attack_single", none.members),
                cell("no_attack_ensemble", none.ensemble[None]),
            ]
            for suffix, loss in LOSSES.items():
                grad1 = [found[Threat("member", i, loss=loss)] for i in indices]
                of_each = [outcomes[attack.name] for outcomes in grad1]
                zero = np.stack([o.zero_gradient for o in of_each])
                own = np.stack([o.members[i] for i, o in enumerate(of_each)])
                votes = np.stack([o.ensemble for o in of_each])
                cells += [
                    cell(f"grad1_single{suffix}", own, zero),
                    cell(f"grad1_ensemble{suffix}", votes, zero),
                ]
                for column, threat in ENSEMBLE_THREATS[loss].items():
                    o = found[threat][attack.name]
                    cells.append(cell(column, o.ensemble[None], o.zero_gradient[None]))
    order = [attack.name for attack in run.attacks]
    return sorted(cells, key=lambda cell: order.index(cell.attack))


def table4(run: Run, rows: Sequence[str], *, num_singles: int = 1) -> list[Cell]:
    """Train the rows of Table 4, attack them and return the table's cells.

    Args:
        run: its settings.
        rows: parts joined by `+`, see `recipes.parts`. A row without an ensemble method
            stands for single networks.
        num_singles: how many; each is attacked through its own gradient.
    """
    if num_singles < 1:
        raise ValueError(
            f"`num_singles` must be >= 1. Received: num_singles={num_singles}"
        )
    cells = []
    threats = ENSEMBLE_THREATS[PAPER_LOSS].values()
    for row in rows:
        if recipes.is_ensemble(row):
            groups = [run.members(row)]
        else:
            groups = [[member] for member in run.members(row, num_singles)]
        run.train(row, [member for group in groups for member in group])
        found = [run.outcomes(row, group, [None, *threats]) for group in groups]
        grad2, repredicted, true = range(1, 4)
        for column, attack, threat in (
            ("no_attack", "none", 0),
            ("fgsm", "FGSM", grad2),
            ("bim", "BIM", grad2),
            ("bim_repredicted", "BIM", repredicted),
            ("fgsm_ensemble_gradient", "FGSM", true),
            ("bim_ensemble_gradient", "BIM", true),
        ):
            outcomes = [of_group[threat][attack] for of_group in found]
            correct = np.stack([o.ensemble for o in outcomes])
            zero = np.stack([o.zero_gradient for o in outcomes]) if threat else None
            cells.append(Cell(run.settings.dataset, attack, row, column, correct, zero))
    return cells
