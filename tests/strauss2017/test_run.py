import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens import datasets
from advens.attacks.threat import Threat
from advens.evaluation.evaluate import evaluate
from advens.evaluation.outcomes import count_lost_classes
from advens.progress import Bars
from advens.storage.store import Store
from advens.strauss2017.run import Run
from advens.strauss2017.settings import Settings, paper_attacks
from advens.training import loaded_ensembles
from advens.training import members as training
from advens.training.samples import member_seeds

GRAD1 = Threat("member", 0, loss="logits")
GRAD2 = Threat("mean_member", loss="logits")


def assert_same(outcomes, others):
    for array, other in zip(outcomes, others, strict=True):
        assert_array_equal(array, other)


def test_members_of_a_row(tmp_path, make_run):
    run = make_run(tmp_path, seed=5)
    members = run.members("bagging")
    assert [member.seed for member in members] == member_seeds(5, 3)
    assert run.member_seeds == member_seeds(5, 3)
    assert {member.train_checksum for member in members} == {
        run.dataset.checksums["train"]
    }
    assert all(member.recipe.bootstrap for member in members)
    assert run.members("bagging", 2) == members[:2]
    assert run.members("bagging", 5)[:3] == members
    assert len({m.recipe.architecture for m in run.members("mix_mod")}) == 3


def test_attack_returns_the_outcomes_of_each_threat(tmp_path, make_run, save_untrained):
    run = make_run(tmp_path)
    members = run.members("rand_ini")
    save_untrained(run, members)
    threats = {GRAD2: run.attacks, None: [], GRAD1: run.attacks}
    by_threat = run.attack("rand_ini", members, threats)
    assert list(by_threat) == [GRAD2, None, GRAD1]
    ensemble = training.load_ensemble(members, run.store)
    x, y = run.dataset.x_test, run.dataset.y_test
    assert list(by_threat[None]) == ["none"]
    [clean] = evaluate(ensemble, x, y)
    assert_same(by_threat[None]["none"], clean)
    for threat in (GRAD1, GRAD2):
        assert list(by_threat[threat]) == ["FGSM", "BIM"]
        expected = evaluate(ensemble, x, y, threat=threat, attacks=run.attacks)
        for outcomes, other in zip(by_threat[threat].values(), expected, strict=True):
            assert_same(outcomes, other)
    [other_bim] = paper_attacks("digits", bim_num_steps=2)[1:]
    by_threat = run.attack("rand_ini", members, {GRAD2: [other_bim]})
    [expected] = evaluate(ensemble, x, y, threat=GRAD2, attacks=[other_bim])
    assert list(by_threat[GRAD2]) == ["BIM"]
    assert_same(by_threat[GRAD2]["BIM"], expected)


def test_outcomes_are_computed_once(tmp_path, make_run, save_untrained, request):
    run = make_run(tmp_path)
    members, others = run.members("rand_ini"), run.members("bagging")
    save_untrained(run, [*members, *others])
    by_threat = run.attack("rand_ini", members, {None: [], GRAD2: run.attacks})
    request.getfixturevalue("nothing_to_do")
    again = make_run(tmp_path).attack(
        "rand_ini", members, {None: [], GRAD2: run.attacks}
    )
    for threat, outcomes in by_threat.items():
        assert again[threat].keys() == outcomes.keys()
        for name in outcomes:
            assert_same(again[threat][name], outcomes[name])
    # Other members, another number of them and other attacks are not the same.
    for options in (
        {"members": others, "threats": {None: []}},
        {"members": members[:2], "threats": {None: []}},
        {"members": members, "threats": {GRAD1: run.attacks}},
        {"members": members, "threats": {GRAD2: run.attacks[:1]}},
    ):
        with pytest.raises(AssertionError, match="should have held"):
            run.attack("rand_ini", **options)


@pytest.fixture
def loads(monkeypatch):
    """Return the list to which the number of members of each new ensemble is added."""
    load_ensemble, sizes = training.load_ensemble, []

    def noting_load_ensemble(members, store):
        sizes.append(len(members))
        return load_ensemble(members, store)

    monkeypatch.setattr(loaded_ensembles, "load_ensemble", noting_load_ensemble)
    return sizes


def test_an_ensemble_is_kept_for_other_weights(
    tmp_path, make_run, save_untrained, loads
):
    run = make_run(tmp_path, num_members=2)
    groups = {row: run.members(row) for row in ("rand_ini", "bagging", "mix_mod")}
    # Members of the same seed start alike, so they would predict alike, too.
    groups["bagging"] = make_run(tmp_path, num_members=2, seed=1).members("bagging")
    for group in groups.values():
        save_untrained(run, group)
    clean = {
        row: run.attack(row, group, {None: []})[None]["none"]
        for row, group in groups.items()
    }
    # Bagging has the networks of Rand. Ini., Mix. Mod. has others.
    assert loads == [2, 2]
    assert (clean["rand_ini"].members != clean["bagging"].members).any()
    for row, group in groups.items():
        ensemble = training.load_ensemble(group, run.store)
        [expected] = evaluate(ensemble, run.dataset.x_test, run.dataset.y_test)
        assert_same(clean[row], expected)
    # The weights of the kept ensemble are those of Bagging, and must be replaced.
    by_threat = run.attack("rand_ini", groups["rand_ini"], {GRAD2: run.attacks})
    ensemble = training.load_ensemble(groups["rand_ini"], run.store)
    x, y = run.dataset.x_test, run.dataset.y_test
    [_, bim] = evaluate(ensemble, x, y, threat=GRAD2, attacks=run.attacks)
    assert_same(by_threat[GRAD2]["BIM"], bim)


def test_at_most_three_ensembles_are_kept(tmp_path, make_run, save_untrained, loads):
    run = make_run(tmp_path)

    def attack(size, *, seed):
        # A group that has not been attacked yet needs its ensemble. Runs that differ in
        # their settings share what is kept.
        other_run = dataclasses.replace(run, seed=seed)
        group = other_run.members("rand_ini", size)
        save_untrained(run, group)
        other_run.attack("rand_ini", group, {None: []})

    for size in (1, 2, 3):
        attack(size, seed=1)
    assert loads == [1, 2, 3]
    attack(1, seed=2)
    assert loads == [1, 2, 3]
    assert len(run.ensembles) == 3
    attack(4, seed=2)
    assert len(run.ensembles) == 3
    # The ensemble of two was used least recently.
    attack(1, seed=3)
    attack(3, seed=3)
    assert loads == [1, 2, 3, 4]
    attack(2, seed=3)
    assert loads == [1, 2, 3, 4, 2]
    assert len(run.ensembles) == 3


def test_stages_are_timed_and_added_up(tmp_path, make_run, save_untrained):
    run = make_run(tmp_path)
    members = run.members("rand_ini")
    save_untrained(run, members)
    run.seconds["train rand_ini"] = 1000.0
    run.train("rand_ini", members)
    run.attack("rand_ini", members, {None: []})
    assert set(run.seconds) == {"train rand_ini", "attack rand_ini"}
    assert run.seconds["train rand_ini"] >= 1000
    assert run.seconds["attack rand_ini"] >= 0
    # As the stored members say.
    assert run.restarts == {"rand_ini": [0, 1, 2]}


def test_training_and_attacks_are_shown(tmp_path, make_run, save_untrained, capsys):
    run = make_run(tmp_path, num_members=2, bars=Bars(show=True))
    students = run.members("bagging+def_dist")
    save_untrained(run, [*students, *(student.teacher for student in students)])
    run.train("bagging+def_dist", students)
    run.attack("bagging+def_dist", students, {None: [], GRAD2: run.attacks})
    printed = " ".join(capsys.readouterr().err.split())
    # Two students and their teachers, two epochs each; 40 images under two threats.
    assert "8/8 epochs, 4/4 members" in printed
    assert "80/80 images" in printed
    assert "Bagging + Def. Dist" in printed


def test_lost_classes_of_many_images():
    y = np.repeat(np.arange(10), 20)
    correct = np.ones((3, 200), bool)
    correct[0, 1:20] = False  # 1 of 20 right, where guessing gives 2
    correct[0, 20:40] = False
    correct[1, 2:20] = False
    assert count_lost_classes(correct, y) == [2, 0, 0]


def test_deviations(tmp_path, make_run):
    assert make_run(tmp_path).deviations() == [
        "epochs=2",
        "num_members=3",
        "BIM num_steps=3",
        "train_images=160 of 1437",
        "test_images=40 of 360",
    ]
    whole = Run(
        datasets.load("digits"),
        Settings.for_dataset("digits"),
        paper_attacks("digits"),
        Store(tmp_path),
    )
    assert whole.deviations() == []
    whole.attacks = paper_attacks("digits", bim_eps=0.5)
    assert whole.deviations() == ["BIM eps=0.5"]


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("num_members", 0, "an integer >= 1"),
        ("num_members", 1.5, "an integer >= 1"),
        ("seed", -1, ">= 0"),
        ("n_jobs", 0, "an integer >= 1"),
    ],
)
def test_unsuitable_options(tmp_path, make_run, option, value, rule):
    message = f"`{option}` must be {rule}.* Received: {option}={value}"
    with pytest.raises(ValueError, match=message):
        make_run(tmp_path, **{option: value})


def test_an_unknown_optimizer_is_refused_before_any_training(tmp_path, make_run):
    settings = Settings.for_dataset("digits", optimizer="adm")
    with pytest.raises(ValueError, match="name of a Keras optimizer.*optimizer='adm'"):
        make_run(tmp_path, settings=settings)
