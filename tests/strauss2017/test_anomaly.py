import dataclasses

import pytest
from numpy.testing import assert_array_equal

from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import evaluate
from advens.strauss2017 import experiments
from advens.strauss2017.anomaly import measure_anomaly
from advens.training import members as training

COLUMNS = ["grad1_single", "grad1_ensemble", "grad2_ensemble", "ensemble_gradient"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def run(root, make_run):
    return make_run(root, num_members=2)


@pytest.fixture(scope="module")
def table2(run):
    return {
        cell.column: cell
        for cell in experiments.table2(run, ["bagging"])
        if cell.attack == "BIM"
    }


@pytest.fixture(scope="module")
def points(run, table2):
    return measure_anomaly(run, "bagging", max_num_steps=4)


def by_settings(points):
    return {
        (point.column, point.labels, point.attack.box, point.attack.num_steps): point
        for point in points
    }


def test_a_point_for_each_column_reading_box_and_number_of_steps(points):
    expected = [
        (column, labels, box, num_steps)
        for box in (False, True)
        for labels in ("true", "predicted", "repredicted")
        for num_steps in range(1, 5)
        for column in COLUMNS
    ]
    assert list(by_settings(points)) == expected
    for point, (column, labels, box, num_steps) in zip(points, expected, strict=True):
        name = f"BIM {num_steps}"
        assert point.attack == Attack(name, 0.1, 0.0125, num_steps, box)
        assert point.cell.dataset == "digits"
        assert point.cell.row == "bagging"
        assert point.cell.attack == name
        assert point.cell.column == f"{column}_{labels}" + ("_box" if box else "")
        shape = (2 if column.startswith("grad1") else 1, 40)
        assert point.cell.correct.shape == point.cell.zero_gradient.shape == shape


def test_after_the_steps_of_bim_it_is_what_table2_has(points, table2):
    points = by_settings(points)
    for column, labels, of_table2 in (
        ("grad1_single", "true", "grad1_single"),
        ("grad1_ensemble", "true", "grad1_ensemble"),
        ("grad2_ensemble", "true", "grad2_ensemble"),
        ("grad2_ensemble", "repredicted", "grad2_ensemble_repredicted"),
        ("ensemble_gradient", "true", "ensemble_gradient"),
    ):
        cell = points[column, labels, False, 3].cell
        assert_array_equal(cell.correct, table2[of_table2].correct)
        assert_array_equal(cell.zero_gradient, table2[of_table2].zero_gradient)


@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize(
    ("column", "labels", "box", "threat"),
    [
        ("grad1_single", "predicted", True, Threat("member", 1, "predicted", "logits")),
        (
            "grad2_ensemble",
            "repredicted",
            True,
            Threat("mean_member", None, "repredicted", "logits"),
        ),
        (
            "ensemble_gradient",
            "predicted",
            False,
            Threat("ensemble", None, "predicted", "logits"),
        ),
    ],
)
def test_a_point_is_what_an_attack_of_so_many_steps_gives(
    run, points, column, labels, box, threat, num_steps
):
    point = by_settings(points)[column, labels, box, num_steps]
    ensemble = training.load_ensemble(run.members("bagging"), run.store)
    attack = Attack("BIM", 0.1, 0.0125, num_steps, box)
    x, y = run.dataset.x_test, run.dataset.y_test
    [outcomes] = evaluate(ensemble, x, y, threat=threat, attacks=[attack])
    correct = outcomes.ensemble
    if column == "grad1_single":
        correct = outcomes.members[1]
    assert_array_equal(point.cell.correct[-1], correct)
    assert_array_equal(point.cell.zero_gradient[-1], outcomes.zero_gradient)


def test_a_second_run_does_nothing(root, make_run, points, nothing_to_do):
    run = make_run(root, num_members=2)
    again = measure_anomaly(run, "bagging", max_num_steps=4)
    for point, other in zip(points, again, strict=True):
        assert_array_equal(point.cell.correct, other.cell.correct)


def test_grad1_of_the_first_members_alone(root, make_run, points, nothing_to_do):
    run = make_run(root, num_members=2)
    first = measure_anomaly(run, "bagging", max_num_steps=4, num_grad1=1)
    for point, whole in zip(first, points, strict=True):
        assert_array_equal(point.cell.correct, whole.cell.correct[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": "boosting"}, "Received: 'boosting'"),
        ({"row": "adv_train"}, "`row` must be the row of an ensemble"),
        ({"max_num_steps": 2}, "`max_num_steps` must be >= BIM's num_steps, 3."),
        ({"max_num_steps": 0}, "`max_num_steps` must be an integer >= 1"),
        ({"num_grad1": 0}, "`num_grad1` must be from 1 to 2. Received: num_grad1=0"),
        ({"num_grad1": 3}, "`num_grad1` must be from 1 to 2. Received: num_grad1=3"),
    ],
)
def test_unsuitable_options_are_found_before_any_training(
    tmp_path, make_run, monkeypatch, options, message
):
    run = make_run(tmp_path, num_members=2)
    monkeypatch.setattr(training, "fit_members", None)
    with pytest.raises(ValueError, match=message):
        measure_anomaly(run, **{"row": "bagging", **options})


def test_the_runs_own_attacks_stay_as_they_are(run, points):
    fgsm, bim = run.attacks
    assert bim == Attack("BIM", 0.1, 0.0125, 3)
    assert dataclasses.astuple(fgsm)[0] == "FGSM"
