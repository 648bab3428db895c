import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens import datasets, evaluation, experiments, models, tables, training
from advens.attacks import paper_attacks
from advens.experiments import Run
from advens.recipes import Settings
from advens.store import Store

SMALL = dataclasses.replace(models.TABLE1, blocks=((4, 4),), units=8)


@pytest.fixture(scope="module", autouse=True)
def small_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models._BASE, "digits", SMALL)
        patch.setitem(models.MIXED_BLOCKS, SMALL, (((4, 4),), ((6, 4),), ((4, 4, 4),)))
        yield


def make_run(root, **options):
    return Run(
        dataset=datasets.load("digits").subset(160, 40),
        settings=Settings("digits", epochs=2),
        attacks=paper_attacks("digits", bim_num_steps=3),
        store=Store(root),
        **{"num_members": 3, "n_jobs": 1, **options},
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def table2(root):
    return experiments.table2(make_run(root), ["rand_ini", "mix_mod", "bagging"])


@pytest.fixture
def nothing_to_do(monkeypatch):
    """Let any training, and any attack, fail."""

    def fail(*args, **kwargs):
        raise AssertionError("the store should have held this")

    monkeypatch.setattr(training, "_fit", fail)
    monkeypatch.setattr(evaluation, "_judged", fail)


def test_table2_has_a_cell_for_each_column(table2):
    frame = tables.wide(table2)
    assert list(frame.columns) == list(tables.TABLE2_COLUMNS)
    methods = ["Rand. Ini.", "Mix. Mod.", "Bagging"]
    assert list(frame.index) == [(a, m) for a in ("FGSM", "BIM") for m in methods]
    for cell in table2:
        members = "single" in cell.column or cell.column.startswith("grad1")
        assert cell.correct.shape == (3 if members else 1, 40)
        attacked = not cell.column.startswith("no_attack")
        assert (cell.zero_gradient is not None) == attacked


def test_table2_is_what_its_ensemble_does(root, table2):
    """Attack the stored members again, by themselves."""
    run = make_run(root)
    x, y = run.dataset.x_test, run.dataset.y_test
    ensemble = training.load_ensemble(run.members("bagging"), run.store)
    cells = {c.column: c for c in table2 if (c.attack, c.row) == ("BIM", "bagging")}
    rights = [np.argmax(m.predict(x, verbose=0), -1) == y for m in ensemble.members]
    assert_array_equal(cells["no_attack_single"].correct, rights)
    bim = run.attacks[1:]
    for end, loss in (("", "logits"), ("_exact", "exact")):
        for i in range(3):
            threat = evaluation.Threat("member", i, loss=loss)
            [found] = evaluation.evaluate(ensemble, x, y, threat=threat, attacks=bim)
            assert_array_equal(cells[f"grad1_single{end}"].correct[i], found.members[i])
            assert_array_equal(cells[f"grad1_ensemble{end}"].correct[i], found.ensemble)
        for column, threat in experiments.ENSEMBLE_THREATS[loss].items():
            [found] = evaluation.evaluate(ensemble, x, y, threat=threat, attacks=bim)
            assert_array_equal(cells[column].correct[0], found.ensemble)


def test_second_run_does_nothing(root, table2, nothing_to_do):
    again = experiments.table2(make_run(root), ["rand_ini", "mix_mod", "bagging"])
    for cell, other in zip(table2, again, strict=True):
        assert_array_equal(cell.correct, other.correct)


def test_same_seed_same_table_and_other_seed_another(tmp_path, table2):
    fresh = experiments.table2(make_run(tmp_path), ["bagging"])
    kept = [cell for cell in table2 if cell.row == "bagging"]
    for cell, other in zip(kept, fresh, strict=True):
        assert_array_equal(cell.correct, other.correct)
    other = experiments.table2(make_run(tmp_path, seed=1), ["bagging"])
    assert (other[0].correct != fresh[0].correct).any()


def test_table4_takes_bagging_from_table2(root, table2, nothing_to_do):
    cells = experiments.table4(make_run(root), ["bagging"])
    values = {cell.column: cell.correct for cell in cells}
    for column, attack, of_table2 in (
        ("no_attack", "FGSM", "no_attack_ensemble"),
        ("fgsm", "FGSM", "grad2_ensemble"),
        ("bim", "BIM", "grad2_ensemble"),
        ("bim_repredicted", "BIM", "grad2_ensemble_repredicted"),
        ("fgsm_ensemble_gradient", "FGSM", "ensemble_gradient"),
        ("bim_ensemble_gradient", "BIM", "ensemble_gradient"),
    ):
        [cell] = [
            cell
            for cell in table2
            if (cell.row, cell.attack, cell.column) == ("bagging", attack, of_table2)
        ]
        assert_array_equal(values[column], cell.correct)


def test_table4_trains_no_member_twice(root, table2, monkeypatch):
    trained = []
    fit = training._fit
    monkeypatch.setattr(
        training,
        "_fit",
        lambda members, *args, **options: (
            trained.extend(members),
            fit(members, *args, **options),
        ),
    )
    rows = ["adv_train", "def_dist", "bagging+adv_train", "bagging+def_dist"]
    cells = experiments.table4(make_run(root), rows, num_singles=2)
    # Both teachers of Def. Dist. are Rand. Ini.'s; those of the last row are Bagging's.
    assert len(trained) == 2 + 2 + 3 + 3
    assert len({member.digest for member in trained}) == len(trained)
    frame = tables.wide(cells)
    assert list(frame.columns) == list(tables.TABLE4_COLUMNS)
    assert list(frame.index)[2:] == ["Bagging + Adv. Train.", "Bagging + Def. Dist."]
    assert {cell.row: len(cell.correct) for cell in cells} == {
        **{"adv_train": 2, "def_dist": 2},
        **{"bagging+adv_train": 1, "bagging+def_dist": 1},
    }


def test_combination_that_the_paper_lacks(root):
    cells = experiments.table4(make_run(root, num_members=1), ["gauss_noise+adv_train"])
    assert list(tables.wide(cells).index) == ["Gauss Noise + Adv. Train."]


def test_stages_are_timed(tmp_path):
    run = make_run(tmp_path, num_members=1)
    experiments.table2(run, ["rand_ini"])
    assert set(run.seconds) == {"train rand_ini", "attack rand_ini"}
    assert min(run.seconds.values()) > 0


def test_lost_classes_are_those_recognised_less_often_than_by_guessing(tmp_path):
    run = make_run(tmp_path, num_members=2)
    members = run.members("rand_ini")
    # One always answers 3, the other never 3, nor 7.
    for member, labels, shift in zip(members, ([3], [3, 7]), (1e3, -1e3), strict=True):
        network = models.build(member.recipe.architecture, seed=0)
        *weights, bias = network.get_weights()
        bias[labels] += shift
        arrays = {f"weight_{i:03d}": w for i, w in enumerate([*weights, bias])}
        run.store.save(training.KIND, member.spec, arrays)
    [found] = run.outcomes("rand_ini", members, [None])
    y, right = run.dataset.y_test, found["none"].members
    counts = [sum(one[y == label].mean() < 0.1 for label in set(y)) for one in right]
    assert run.lost_classes == {"rand_ini": counts}
    assert counts[0] == 9
    assert counts[1] >= 2


def test_lost_classes_of_many_images():
    y = np.repeat(np.arange(10), 20)
    correct = np.ones((3, 200), bool)
    correct[0, 1:20] = False  # 1 of 20 right, where guessing gives 2
    correct[0, 20:40] = False
    correct[1, 2:20] = False
    assert experiments._lost_classes(correct, y) == [2, 0, 0]


def test_deviations(root):
    assert make_run(root).deviations() == [
        "epochs=2",
        "num_members=3",
        "BIM num_steps=3",
        "train_images=160 of 1437",
        "test_images=40 of 360",
    ]
    whole = Run(
        datasets.load("digits"),
        Settings("digits"),
        paper_attacks("digits"),
        Store(root),
    )
    assert whole.deviations() == []
    whole.attacks = paper_attacks("digits", bim_eps=0.5)
    assert len(whole.deviations()) == 1


@pytest.mark.parametrize(
    ("option", "value"), [("num_members", 0), ("seed", -1), ("n_jobs", 0)]
)
def test_bad_options(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be >= .*{option}={value}"):
        make_run(tmp_path, **{option: value})
    with pytest.raises(ValueError, match="`num_singles` must be >= 1"):
        experiments.table4(make_run(tmp_path), ["adv_train"], num_singles=0)
