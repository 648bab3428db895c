import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens.attacks.threat import Threat
from advens.evaluation.evaluate import evaluate
from advens.evaluation.outcomes import Outcomes
from advens.strauss2017 import columns, experiments
from advens.strauss2017.columns import BY_NAME, Column
from advens.strauss2017.readings import PRINTED, columns_read
from advens.training import members as training

TABLE2 = columns_read("table2", PRINTED.labels)
TABLE4 = columns_read("table4", PRINTED.labels)

ROWS = ["rand_ini", "mix_mod", "bagging"]
# By hand: the gradients of Table 2's columns without Grad. 1.
THREATS = {
    "grad2_ensemble": Threat("mean_member", loss="logits"),
    "grad2_ensemble_repredicted": Threat(
        "mean_member", labels="repredicted", loss="logits"
    ),
    "ensemble_gradient": Threat("ensemble", loss="logits"),
    "grad2_ensemble_exact": Threat("mean_member", loss="exact"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def table2_run(root, make_run):
    return make_run(root)


@pytest.fixture(scope="module")
def table2(table2_run):
    return experiments.table2(table2_run, ROWS)


def bits(*strings):
    return np.array([[c == "1" for c in s] for s in strings])


def test_answers_by_hand():
    """Two members, three images: whose answers count, and where gradients are zero."""
    zeros = bits("100", "010", "001")
    clean = Outcomes(bits("111", "101"), bits("110")[0], bits("000")[0])
    first = Outcomes(bits("001", "100"), bits("010")[0], zeros[0])
    second = Outcomes(bits("110", "011"), bits("101")[0], zeros[1])
    grad2 = Outcomes(bits("000", "111"), bits("011")[0], zeros[2])
    by_threat = {
        None: {"none": clean},
        Threat("member", 0, loss="logits"): {"BIM": first},
        Threat("member", 1, loss="logits"): {"BIM": second},
        THREATS["grad2_ensemble"]: {"BIM": grad2},
    }

    def answers(name, num_grad1=2):
        return experiments.answers(BY_NAME[name], "BIM", by_threat, num_grad1=num_grad1)

    assert_array_equal(answers("no_attack_single")[0], bits("111", "101"))
    assert_array_equal(answers("no_attack_ensemble")[0], bits("110"))
    for name, correct in {
        # Member 0 under its own gradient, member 1 under its own.
        "grad1_single": bits("001", "011"),
        "grad1_ensemble": bits("010", "101"),
    }.items():
        assert_array_equal(answers(name)[0], correct)
        assert_array_equal(answers(name)[1], zeros[:2])
        assert_array_equal(answers(name, num_grad1=1)[0], correct[:1])
        assert_array_equal(answers(name, num_grad1=1)[1], zeros[:1])
    assert_array_equal(answers("grad2_ensemble")[0], bits("011"))
    assert_array_equal(answers("grad2_ensemble")[1], zeros[2:])


def test_table2_has_a_cell_for_each_attack_row_and_column(table2):
    assert [(cell.attack, cell.row, cell.column) for cell in table2] == [
        (attack, row, column.name)
        for attack in ("FGSM", "BIM")
        for row in ROWS
        for column in TABLE2
    ]
    for cell in table2:
        has_members = "single" in cell.column or cell.column.startswith("grad1")
        shape = (3 if has_members else 1, 40)
        assert cell.dataset == "digits"
        assert cell.correct.shape == shape
        if cell.column.startswith("no_attack"):
            assert cell.zero_gradient is None
        else:
            assert cell.zero_gradient.shape == shape


def test_table2_is_what_attacks_on_its_members_give(table2_run, table2):
    run = table2_run
    x, y = run.dataset.x_test, run.dataset.y_test
    ensemble = training.load_ensemble(run.members("bagging"), run.store)
    probs = np.stack([m.predict(x, verbose=0) for m in ensemble.members])
    for index, attack in enumerate(run.attacks):
        cells = {
            cell.column: cell
            for cell in table2
            if (cell.attack, cell.row) == (attack.name, "bagging")
        }
        assert_array_equal(cells["no_attack_single"].correct, probs.argmax(-1) == y)
        vote = probs.mean(axis=0).argmax(-1)
        assert_array_equal(cells["no_attack_ensemble"].correct, [vote == y])
        for end, loss in (("", "logits"), ("_exact", "exact")):
            single, grad1 = cells[f"grad1_single{end}"], cells[f"grad1_ensemble{end}"]
            for i in range(3):
                threat = Threat("member", i, loss=loss)
                outcomes = evaluate(ensemble, x, y, threat=threat, attacks=run.attacks)
                assert_array_equal(single.correct[i], outcomes[index].members[i])
                assert_array_equal(grad1.correct[i], outcomes[index].ensemble)
                for cell in (single, grad1):
                    zero_gradient = outcomes[index].zero_gradient
                    assert_array_equal(cell.zero_gradient[i], zero_gradient)
        for column, threat in THREATS.items():
            outcomes = evaluate(ensemble, x, y, threat=threat, attacks=run.attacks)
            cell = cells[column]
            assert_array_equal(cell.correct, outcomes[index].ensemble[None])
            assert_array_equal(cell.zero_gradient, outcomes[index].zero_gradient[None])


def test_a_second_run_does_nothing(root, make_run, table2, nothing_to_do):
    again = experiments.table2(make_run(root), ROWS)
    for cell, other in zip(table2, again, strict=True):
        assert_array_equal(cell.correct, other.correct)


def test_the_same_seed_gives_the_same_table_and_another_seed_another(
    tmp_path, make_run, table2
):
    again = experiments.table2(make_run(tmp_path), ["bagging"])
    of_bagging = [cell for cell in table2 if cell.row == "bagging"]
    for cell, other in zip(of_bagging, again, strict=True):
        assert_array_equal(cell.correct, other.correct)
    of_seed_1 = experiments.table2(make_run(tmp_path, seed=1), ["bagging"])
    assert (of_seed_1[0].correct != again[0].correct).any()


def test_no_row_starts_when_the_time_is_over(
    root, make_run, table2, nothing_to_do, tmp_path, monkeypatch
):
    """What is done by then is exported, and the cheapest rows came first."""
    run = make_run(root, minutes=5, export_dir=tmp_path / "exported")
    started = []

    def check_time(row):
        started.append(row)
        if row == "bagging+def_dist":
            run._start -= 6 * 60
        check(row)

    check = run.check_time
    monkeypatch.setattr(run, "check_time", check_time)
    with pytest.raises(TimeoutError, match=r"over before Bagging \+ Def. Dist.: 5 min"):
        experiments.table4(run, ["bagging+def_dist", "bagging"])
    assert started == ["bagging", "bagging+def_dist"]
    elsewhere = make_run(tmp_path / "elsewhere")
    assert elsewhere.store.take_in(tmp_path / "exported") > 0
    assert experiments.table4(elsewhere, ["bagging"])


def test_outcomes_travel_without_their_members(
    root, tmp_path, make_run, table2, nothing_to_do
):
    run = make_run(root, export_dir=tmp_path / "exported")
    experiments.table2(run, ROWS)
    elsewhere = make_run(tmp_path / "elsewhere")
    elsewhere.store.take_in(tmp_path / "exported")
    again = experiments.table2(elsewhere, ROWS)
    for cell, other in zip(table2, again, strict=True):
        assert_array_equal(cell.correct, other.correct)
    assert not (tmp_path / "elsewhere" / "member").exists()
    assert elsewhere.restarts == run.restarts
    assert elsewhere.lost_classes == run.lost_classes


def test_table4_takes_bagging_from_table2(root, make_run, table2, nothing_to_do):
    cells = {c.column: c for c in experiments.table4(make_run(root), ["bagging"])}
    for column, attack, of_table2 in (
        ("no_attack", "FGSM", "no_attack_ensemble"),
        ("fgsm", "FGSM", "grad2_ensemble"),
        ("bim", "BIM", "grad2_ensemble"),
        ("bim_repredicted", "BIM", "grad2_ensemble_repredicted"),
        ("fgsm_ensemble_gradient", "FGSM", "ensemble_gradient"),
        ("bim_ensemble_gradient", "BIM", "ensemble_gradient"),
    ):
        [expected] = [
            cell
            for cell in table2
            if (cell.row, cell.attack, cell.column) == ("bagging", attack, of_table2)
        ]
        cell = cells[column]
        assert cell.attack == ("none" if column == "no_attack" else attack)
        assert_array_equal(cell.correct, expected.correct)
        if column == "no_attack":
            assert cell.zero_gradient is None
        else:
            assert_array_equal(cell.zero_gradient, expected.zero_gradient)


def test_table4_trains_no_member_twice(root, make_run, table2, monkeypatch):
    fit, trained = training._fit, []

    def noting_fit(members, *args, **options):
        trained.extend(members)
        fit(members, *args, **options)

    monkeypatch.setattr(training, "_fit", noting_fit)
    rows = ["adv_train", "def_dist", "bagging+adv_train", "bagging+def_dist"]
    run = make_run(root)
    cells = experiments.table4(run, rows, num_singles=2)
    # The teachers of Def. Dist. are members of Rand. Ini., those of the last row are
    # members of Bagging.
    assert len(trained) == 2 + 2 + 3 + 3
    assert len({member.digest for member in trained}) == len(trained)
    names = [column.name for column in TABLE4]
    assert [(cell.row, cell.column) for cell in cells] == [
        (row, name) for row in rows for name in names
    ]
    assert {cell.row: len(cell.correct) for cell in cells} == {
        **{"adv_train": 2, "def_dist": 2},
        **{"bagging+adv_train": 1, "bagging+def_dist": 1},
    }
    # Each single network is attacked through its own gradient.
    x, y = run.dataset.x_test, run.dataset.y_test
    [cell] = [c for c in cells if (c.row, c.column) == ("adv_train", "fgsm")]
    for i, member in enumerate(run.members("adv_train", 2)):
        ensemble = training.load_ensemble([member], run.store)
        threat = Threat("member", 0, loss="logits")
        fgsm, _ = evaluate(ensemble, x, y, threat=threat, attacks=run.attacks)
        assert_array_equal(cell.correct[i], fgsm.ensemble)
    assert [len(run.lost_classes[row]) for row in rows] == [2, 2, 3, 3]


def test_a_combination_that_the_paper_lacks(root, make_run):
    run = make_run(root, num_members=1)
    cells = experiments.table4(run, ["gauss_noise+adv_train"])
    assert {cell.row for cell in cells} == {"gauss_noise+adv_train"}
    assert len(cells) == len(TABLE4)


def test_a_new_column_is_one_entry(tmp_path, make_run, save_untrained, monkeypatch):
    extra = Column(
        "ensemble_gradient_predicted",
        "ensemble under its own gradient, with predicted labels",
        gradient="ensemble",
        labels="predicted",
        loss="exact",
    )
    run = make_run(tmp_path, num_members=2)
    members = run.members("rand_ini")
    save_untrained(run, members)
    usual = experiments.table2(run, ["rand_ini"])
    monkeypatch.setitem(columns.TABLES, "table2", (*columns.TABLE2, extra))
    cells = experiments.table2(run, ["rand_ini"])
    width = len(TABLE2)
    assert [cell.column for cell in cells[:width]] == [
        cell.column for cell in usual[:width]
    ]
    new = [cell for cell in cells if cell.column == extra.name]
    assert [cell.attack for cell in new] == ["FGSM", "BIM"]
    assert len(cells) == len(usual) + 2
    ensemble = training.load_ensemble(members, run.store)
    x, y = run.dataset.x_test, run.dataset.y_test
    threat = Threat("ensemble", labels="predicted", loss="exact")
    outcomes = evaluate(ensemble, x, y, threat=threat, attacks=run.attacks)
    for cell, outcome in zip(new, outcomes, strict=True):
        assert_array_equal(cell.correct, outcome.ensemble[None])
        assert_array_equal(cell.zero_gradient, outcome.zero_gradient[None])


def test_lost_classes_are_those_recognised_less_often_than_by_guessing(
    tmp_path, make_run, save_untrained
):
    def bias_answers(index, weights):
        # Member 0 always answers 3, member 1 never answers 3 or 7.
        labels, shift = (([3], 1e3), ([3, 7], -1e3))[index]
        weights[-1][labels] += shift

    run = make_run(tmp_path, num_members=2)
    save_untrained(run, run.members("rand_ini"), bias_answers)
    cells = experiments.table2(run, ["rand_ini"])
    [clean] = [
        cell
        for cell in cells
        if (cell.attack, cell.column) == ("FGSM", "no_attack_single")
    ]
    y = run.dataset.y_test
    counts = [
        sum(correct[y == label].mean() < 0.1 for label in set(y))
        for correct in clean.correct
    ]
    assert run.lost_classes == {"rand_ini": counts}
    assert counts[0] == 9
    assert counts[1] >= 2
    # They are counted anew, not added up.
    experiments.table2(run, ["rand_ini"])
    assert run.lost_classes == {"rand_ini": counts}


def test_unsuitable_number_of_single_networks(tmp_path, make_run):
    with pytest.raises(ValueError, match="`num_singles` must be an integer >= 1"):
        experiments.table4(make_run(tmp_path), ["adv_train"], num_singles=0)


def test_cells_are_sorted_by_the_runs_attacks(tmp_path, make_run, save_untrained):
    run = make_run(tmp_path, num_members=1)
    run = dataclasses.replace(run, attacks=run.attacks[::-1])
    save_untrained(run, run.members("rand_ini"))
    save_untrained(run, run.members("bagging"))
    cells = experiments.table2(run, ["rand_ini", "bagging"])
    half = len(cells) // 2
    assert {cell.attack for cell in cells[:half]} == {"BIM"}
    assert {cell.attack for cell in cells[half:]} == {"FGSM"}
