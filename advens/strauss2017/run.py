"""A run of a script: train what is missing, attack what is missing."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from advens import backend
from advens.attacks.threat import Attack, Threat
from advens.checks import check_at_least, check_count, check_positive
from advens.cluster.client import Cluster, Evaluation
from advens.datasets import Dataset
from advens.evaluation.evaluate import evaluate_batches
from advens.evaluation.outcomes import Outcomes
from advens.evaluation.stored import KIND, outcomes_spec, stored_outcomes
from advens.progress import Bars
from advens.storage.addresses import Spec
from advens.storage.store import Store
from advens.strauss2017 import constants, rows
from advens.strauss2017.columns import Choice, Column
from advens.strauss2017.readings import PRINTED, ColumnLabels, Reading, columns_read
from advens.strauss2017.settings import SEED, Settings
from advens.training import members as training
from advens.training.loaded_ensembles import LoadedEnsembles
from advens.training.optimizers import make_optimizer
from advens.training.recipe import Member, teachers
from advens.training.samples import member_seeds
from advens.training.state import epochs_done, export_restarts, restarts


@dataclasses.dataclass
class Run:
    """One run of a script: its data, its settings, its store.

    Attributes:
        dataset: the data.
        settings: how members are trained.
        attacks: FGSM and BIM, with their budgets.
        reading: the reading that `settings`, `attacks` and `labels` start from.
        labels: see `Reading`.
        columns: which columns its tables have, see `columns_read`.
        store: where members and outcomes are kept.
        num_members: classifiers in an ensemble, >= 1.
        seed: the run seed, from which each member's seed is drawn; >= 0.
        n_jobs: processes that train, >= 1; see `training.default_jobs`.
        stack: see `training.fit_members`.
        bars: where progress is shown.
        cluster: workers that train and attack; None for this machine alone.
        seconds: the seconds that this run spent on each stage; filled in on the way.
        restarts: how often each member of a row was started again, None where the store
            does not know; likewise.
        lost_classes: how many classes each member of a row has lost, see
            `count_lost_classes`; filled in by the experiments.
        ensembles: the ensembles that were attacked last, with what was compiled for
            them.
        export_dir: where the outcomes of each row are copied when it ends, if given.
        minutes: no row is started when they are over, see `check_time`.
        evaluated: the addresses of outcomes that are not exported yet, with their
            members; filled in by `attack`.
    """

    dataset: Dataset
    settings: Settings
    attacks: Sequence[Attack]
    store: Store
    reading: Reading = PRINTED
    labels: ColumnLabels = dataclasses.field(default_factory=lambda: PRINTED.labels)
    columns: Choice = "all"
    num_members: int = constants.NUM_MEMBERS
    seed: int = SEED
    n_jobs: int = dataclasses.field(default_factory=training.default_jobs)
    stack: int | None = None
    bars: Bars = dataclasses.field(default_factory=Bars)
    cluster: Cluster | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    restarts: dict[str, list[int | None]] = dataclasses.field(default_factory=dict)
    lost_classes: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    ensembles: LoadedEnsembles = dataclasses.field(default_factory=LoadedEnsembles)
    export_dir: Path | None = None
    minutes: float | None = None
    evaluated: list[tuple[Spec, Sequence[Member]]] = dataclasses.field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        check_count("num_members", self.num_members)
        check_at_least("seed", self.seed, 0)
        if self.minutes is not None:
            check_positive("minutes", self.minutes)
        self._start = time.monotonic()
        training.check_jobs(self.n_jobs, self.stack)
        settings = self.settings
        schedule = {"momentum": settings.momentum, "decay": settings.decay}
        make_optimizer(settings.optimizer, settings.learning_rate, **schedule)

    def columns_of(self, table: str) -> tuple[Column, ...]:
        """Return the columns of `"table2"` or `"table4"`."""
        return columns_read(table, self.labels, self.columns)

    @property
    def member_seeds(self) -> list[int]:
        """The seed of each member."""
        return member_seeds(self.seed, self.num_members)

    def members(self, row: str, count: int | None = None) -> list[Member]:
        """Return the members of a row, or the first `count`, trained or not."""
        return [
            Member(
                rows.recipe(row, self.settings, index),
                seed,
                self.dataset.checksums["train"],
                backend.name(),
            )
            for index, seed in enumerate(
                member_seeds(self.seed, self.num_members if count is None else count)
            )
        ]

    def train(self, row: str, members: Sequence[Member]) -> None:
        """Train those members of a row that the store lacks."""
        start = time.monotonic()
        shown = [*teachers(members), *members]
        with self.bars.training(
            rows.label(row),
            [member.recipe.epochs for member in shown],
            lambda: [epochs_done(member, self.store) for member in shown],
        ):
            if self.cluster:
                self.cluster.fit_members(members, self.dataset)
            training.fit_members(
                members,
                self.dataset,
                self.store,
                n_jobs=self.n_jobs,
                stack=self.stack,
            )
        self.count_restarts(row, members)
        self._add_seconds(f"train {row}", start)

    def count_restarts(self, row: str, members: Sequence[Member]) -> None:
        """Note how often each member of a row was started again."""
        self.restarts[row] = [restarts(m, self.store) for m in members]

    def has_outcomes(
        self,
        members: Sequence[Member],
        threats: Mapping[Threat | None, Sequence[Attack]],
    ) -> bool:
        """Return whether the store has what `attack` would return."""
        specs = (self._spec(members, threat, a) for threat, a in threats.items())
        return all(self.store.has(KIND, spec) for spec in specs)

    def attack(
        self,
        row: str,
        members: Sequence[Member],
        threats: Mapping[Threat | None, Sequence[Attack]],
    ) -> dict[Threat | None, dict[str, Outcomes]]:
        """Attack the ensemble of trained members.

        Args:
            row: the row that they belong to.
            members: one or more.
            threats: the gradients, each with the attacks that follow it; under None,
                without attack, there are none. See `columns.threats`.

        Returns:
            For each threat, the outcomes by the attack's name; without attack, under
            the name `"none"`.
        """
        start = time.monotonic()
        by_threat: dict[Threat | None, dict[str, Outcomes]] = {}
        total = len(self.dataset.x_test) * len(threats)
        with self.bars.attacks(rows.label(row), total) as advance:
            if self.cluster:
                self.cluster.evaluate(
                    [
                        Evaluation(self._spec(members, *item), members, *item)
                        for item in threats.items()
                    ],
                    self.dataset.x_test,
                    self.dataset.y_test,
                    on_images=advance,
                )
                advance = _ignore
            for threat, attacks in threats.items():
                outcomes = self._outcomes(members, threat, attacks, advance)
                names = [attack.name for attack in attacks] or ["none"]
                by_threat[threat] = dict(zip(names, outcomes, strict=True))
        self._add_seconds(f"attack {row}", start)
        return by_threat

    def deviations(self) -> list[str]:
        """Return what differs from the paper in this reading, as `name=value`."""
        name = self.settings.dataset
        usual = _numbers(
            self.reading.training(name),
            constants.NUM_MEMBERS,
            self.reading.attacks(name),
            self.reading.labels,
        )
        ours = _numbers(self.settings, self.num_members, self.attacks, self.labels)
        counts = {"train": len(self.dataset.y_train), "test": len(self.dataset.y_test)}
        sizes = constants.NUM_IMAGES.get(self.dataset.name)
        if sizes is None:
            # Of other data, readers know neither budgets nor sizes.
            usual = {k: v for k, v in usual.items() if not k.endswith(" eps")}
        deviations = [f"{k}={v}" for k, v in ours.items() if v != usual.get(k)]
        if sizes is None:
            images = [f"{part}_images={count}" for part, count in counts.items()]
            return [*deviations, *images, f"otherwise as {name}"]
        for part, size in zip(counts, sizes, strict=True):
            if counts[part] != size:
                deviations.append(f"{part}_images={counts[part]} of {size}")
        return deviations

    def _outcomes(
        self,
        members: Sequence[Member],
        threat: Threat | None,
        attacks: Sequence[Attack],
        on_images: Callable[[int], None],
    ) -> list[Outcomes]:
        """Return the outcomes of each attack, from the store if it holds them."""
        x, y = self.dataset.x_test, self.dataset.y_test
        spec = self._spec(members, threat, attacks)
        self.evaluated.append((spec, members))

        def evaluate_from(done: int) -> Iterator[list[Outcomes]]:
            ensemble = self.ensembles.load(members, self.store)
            return evaluate_batches(
                ensemble, x[done:], y[done:], threat=threat, attacks=attacks
            )

        return stored_outcomes(
            self.store, spec, len(x), evaluate_from, on_images=on_images
        )

    def _spec(
        self,
        members: Sequence[Member],
        threat: Threat | None,
        attacks: Sequence[Attack],
    ) -> Spec:
        evaluated = {
            "members": [member.digest for member in members],
            "test": self.dataset.checksums["test"],
        }
        return outcomes_spec(
            evaluated, threat=threat, attacks=attacks, backend=backend.name()
        )

    def check_time(self, row: str) -> None:
        """Raise a `TimeoutError` if there is no time left to start a row."""
        minutes = (time.monotonic() - self._start) / 60
        if self.minutes is not None and minutes > self.minutes:
            raise TimeoutError(
                f"The time was over before {rows.label(row)}: {self.minutes:g} minutes "
                "by `minutes`. The rows before it are done, and the same command "
                "continues"
            )

    def export(self) -> None:
        """Copy new outcomes to `export_dir`, from where another store can take them in.

        Its tables can then be made there without its members.
        """
        if self.export_dir is None:
            return
        for spec, members in self.evaluated:
            self.store.export(KIND, spec, self.export_dir)
            for member in members:
                export_restarts(member, self.store, self.export_dir)
        self.evaluated.clear()

    def _add_seconds(self, stage: str, start: float) -> None:
        seconds = self.seconds.get(stage, 0) + time.monotonic() - start
        self.seconds[stage] = round(seconds, 1)


def _ignore(count: int) -> None:
    """Count images that the cluster has counted."""


def _numbers(
    settings: Settings,
    num_members: int,
    attacks: Sequence[Attack],
    labels: ColumnLabels,
) -> dict[str, object]:
    """Return what determines a run's numbers, by name."""
    numbers = {**dataclasses.asdict(settings), "num_members": num_members}
    numbers["network"] = settings.network and settings.network.name
    for attack in attacks:
        for name, value in dataclasses.asdict(attack).items():
            numbers[f"{attack.name} {name}"] = value
    return numbers | {f"{name}_labels": value for name, value in labels.items()}
