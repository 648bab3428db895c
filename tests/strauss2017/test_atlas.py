import dataclasses

import numpy as np
import pytest

from advens import datasets
from advens.evaluation.outcomes import Outcomes
from advens.storage.store import Store
from advens.strauss2017 import atlas
from advens.strauss2017.atlas import Training
from advens.strauss2017.run import Run
from advens.strauss2017.settings import Settings, paper_attacks


@pytest.fixture
def make_answered_run(monkeypatch, tmp_path):
    """Return a function that makes runs whose outcomes are drawn at random."""
    rng = np.random.default_rng(0)

    def train(run, row, members):
        run.restarts[row] = [0 for _ in members]

    def attack(run, row, members, threats):
        def draw(*shape):
            return rng.random((*shape, 20)) < 0.5

        names = [a.name for a in run.attacks]
        return {
            threat: {
                name: Outcomes(draw(len(members)), draw(), draw())
                for name in (names if threat else ["none"])
            }
            for threat in threats
        }

    def make(name, **options):
        digits = datasets.load("digits").subset(20, 20)
        return Run(
            dataset=dataclasses.replace(digits, name=name),
            settings=Settings.for_dataset(name),
            attacks=paper_attacks(name),
            store=Store(tmp_path),
            **options,
        )

    monkeypatch.setattr(Run, "train", train)
    monkeypatch.setattr(Run, "attack", attack)
    return make


def test_the_first_stage_on_mnist_is_the_rule_s():
    trainings = atlas.first_stage("mnist")
    assert len(trainings) == len(set(trainings)) == 9
    assert {t.optimizer for t in trainings} == {"adam"}
    assert {t.batch_size for t in trainings} == {32, 64, 128}
    assert {t.logits for t in trainings} == {"relu", "linear", "dense"}


def test_the_first_stage_on_cifar10_is_the_rule_s():
    trainings = atlas.first_stage("cifar10")
    assert len(trainings) == len(set(trainings)) == 8
    assert {t.logits for t in trainings} == {"relu", "linear"}
    (decay,) = {t.decay for t in trainings if t.optimizer == "sgd"}
    assert decay == 0.01 / 25
    assert atlas.second_stage("cifar10", trainings[0]) == []


def test_the_second_stage_tries_other_optimizers_once():
    assert atlas.second_stage("mnist", Training("linear", 32)) == [
        Training("linear", 32, "adadelta", 1.0),
        Training("linear", 32, "rmsprop", 0.001),
        Training("linear", 32, "sgd", 0.01, 0.9, 0.01 / 10),
    ]


def test_a_reading_is_measured_with_all_labels_and_losses(make_answered_run):
    run = make_answered_run("mnist", num_members=2)
    points = atlas.measure_reading(run, Training("linear", 32), box=True)
    # Two losses, of each two columns without attack and, under two attacks with three
    # kinds of labels, three with.
    assert len(points) == 2 * (2 + 2 * 3 * 3)
    names = [(p.cell.attack, p.cell.row, p.cell.column) for p in points]
    assert len(set(names)) == len(points)
    assert not any("/" in part for name in names for part in name)
    single = next(p for p in points if p.column == "grad1_single")
    assert single.cell.correct.shape[0] == 2
    assert single.reading["batch_size"] == 32
    assert single.reading["box"] is True
    # The run itself is as it was.
    assert run.settings.batch_size == 64
    assert not any(attack.box for attack in run.attacks)


def test_the_atlas_goes_through_its_stages(monkeypatch, make_answered_run):
    measured = []

    def measure(run, training, box):
        measured.append((training, box, run.num_members, run.seed))
        return [len(measured)]

    def distances(points):
        # The later, the nearer.
        return [
            {**dataclasses.asdict(training), "box": box}
            for training, box, *_ in reversed(measured[: len(points)])
        ]

    monkeypatch.setattr(atlas, "measure_reading", measure)
    monkeypatch.setattr(atlas.atlas_choice, "atlas_frame", lambda points: points)
    monkeypatch.setattr(atlas.atlas_choice, "distances", distances)
    seen = []
    run = make_answered_run("mnist", num_members=2)
    points = atlas.measure_atlas(run, after_reading=lambda p: seen.append(len(p)))
    # 18 at first; three optimizers more for each of the best two.
    assert len(points) == 18 + 2 * 3 + 3
    assert seen == list(range(1, len(points) + 1))
    assert {count for *_, count, seed in measured if seed == run.seed} == {5}
    assert [(count, seed) for *_, count, seed in measured[-3:]] == [
        (10, 1 + run.seed)
    ] * 3
    assert np.all([m[:2] in [x[:2] for x in measured[:-3]] for m in measured[-3:]])


def test_nothing_is_chosen_where_the_paper_has_no_numbers(
    monkeypatch, make_answered_run
):
    monkeypatch.setattr(atlas, "measure_reading", lambda run, training, box: [box])
    run = make_answered_run("digits", num_members=2)
    assert len(atlas.measure_atlas(run, after_reading=lambda points: None)) == 18
