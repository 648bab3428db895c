"""Tables and numbers worked out by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import brier_score_loss, cohen_kappa_score

from advens.auditing.explain import (
    accuracy,
    calibration,
    classes,
    error_agreement,
    sign_agreement,
    transfer,
)
from advens.evaluation.statistics import wilson_interval


def answers(*rows):
    """Turn "1101" into right and wrong answers."""
    return np.array([[answer == "1" for answer in row] for row in rows])


def test_accuracy():
    # p = 1/2, n = 4, z = 1.95996: (.5 + .48018 +- .63288) / 1.96036.
    want = {"value": 0.5, "low": 0.1500, "high": 0.8500}
    found = accuracy(np.array([True, False, False, True]))
    assert found.keys() == want.keys()
    assert_allclose(list(found.values()), list(want.values()), atol=5e-5)


def test_transfer():
    first = answers("0001", "1101", "0101")
    second = answers("1111", "1000", "1010")
    found = transfer(np.stack([first, second]))
    assert found == [[0.25, 0.75, 0.5], [1.0, 0.25, 0.5]]


def test_error_agreement_by_hand():
    # Both wrong on 2 images, the first alone on 1, the second alone on 2, none on 5:
    # c = .7, the accuracies are .7 and .6, e = .42 + .12 = .54.
    right = answers("0001111111", "0010011111")
    want = (0.7 - 0.54) / (1 - 0.54)
    assert_allclose(error_agreement(right), [[1, want], [want, 1]], rtol=1e-12)


def test_error_agreement_of_the_same_of_opposite_and_of_independent_errors():
    right = answers("0011", "1100", "0101")
    assert_allclose(
        error_agreement(right), [[1, -1, 0], [-1, 1, 0], [0, 0, 1]], atol=1e-12
    )


def test_error_agreement_where_chance_explains_everything():
    """Of members that are always right, and of one that never is."""
    found = error_agreement(answers("111", "111", "000", "011"))
    assert_allclose(found[0], [1, 1, 0, 0], atol=1e-12)
    assert_allclose(found[2], [0, 0, 1, 0], atol=1e-12)


def test_error_agreement_is_cohens_kappa():
    right = np.random.default_rng(0).random((3, 50)) < 0.7
    want = [[cohen_kappa_score(a, b) for b in right] for a in right]
    assert_allclose(error_agreement(right), want, rtol=1e-9)


def test_sign_agreement():
    signs = np.array(
        [
            [[1, -1, 0, 1], [1, 1, -1, 0]],
            [[1, 1, 1, 0], [1, -1, -1, 0]],  # both at five entries, equal at three
            [[0, 0, 0, 0], [0, 0, 0, 1]],  # where the first has no sign
        ]
    )
    assert sign_agreement(signs) == [[1, 0.6, None], [0.6, 1, None], [None, None, 1]]


def test_sign_agreement_of_what_has_no_sign():
    signs = np.zeros((2, 1, 3), np.int8)
    assert sign_agreement(signs) == [[None, None], [None, None]]


# Confidences .9 and .92 (bin 14 of 15: 13/15 = .867 to 14/15 = .933), one of them
# right, and .6 (bin 9: 8/15 to 9/15, which belongs to it), right.
PROBS = np.array([[0.9, 0.1, 0.0], [0.05, 0.92, 0.03], [0.2, 0.2, 0.6]])
Y = np.array([0, 2, 2])


def test_calibration_by_hand():
    found = calibration(PROBS, Y)
    wide, narrow = found["bins"]
    assert_allclose(list(wide.values()), [8 / 15, 0.6, 1, 0.6, 1], rtol=1e-12)
    assert_allclose(list(narrow.values()), [13 / 15, 14 / 15, 2, 0.91, 0.5], rtol=1e-12)
    assert_allclose(found["ece"], (0.4 + 2 * 0.41) / 3, rtol=1e-12)
    brier = (0.02 + 0.05**2 + 0.92**2 + 0.97**2 + 0.24) / 3
    assert_allclose(found["brier"], brier, rtol=1e-12)


def test_calibration_of_certain_probabilities():
    right = calibration(np.eye(2), np.array([0, 1]))
    assert right["ece"] == right["brier"] == 0
    wrong = calibration(np.eye(2), np.array([1, 0]))
    assert (wrong["ece"], wrong["brier"]) == (1, 2)
    [of_both] = wrong["bins"]
    assert of_both["high"] == 1
    assert of_both["count"] == 2


def test_calibration_of_calibrated_probabilities():
    """Labels drawn from the probabilities: no error but chance."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 20_000)
    y = np.array([rng.choice(3, p=p) for p in probs])
    found = calibration(probs, y)
    assert found["ece"] < 0.02
    assert sum(b["count"] for b in found["bins"]) == len(y)
    assert_allclose(
        found["brier"], brier_score_loss(y, probs, scale_by_half=False), rtol=1e-9
    )


def test_probabilities_of_float32_that_round_above_one():
    probs = np.array([[1 + 1e-7, 0]], np.float32)
    assert calibration(probs, np.array([0]))["bins"][0]["count"] == 1


def test_classes():
    y = np.array([2, 0, 2, 2, 0])
    clean = np.array([True, True, True, False, False])
    robust = np.array([True, False, False, False, False])
    predicted = np.array([2, 1, 0, 0, 1])
    zero, two = classes(y, clean, robust, predicted, num_classes=4)
    assert (zero["class"], zero["num_images"]) == (0, 2)
    assert zero["taken_for"] == [0, 2, 0, 0]
    assert (zero["clean"]["value"], zero["robust"]["value"]) == (0.5, 0)
    assert (two["class"], two["num_images"]) == (2, 3)
    assert two["taken_for"] == [2, 0, 1, 0]
    low, high = wilson_interval(1 / 3, 3)
    assert two["robust"] == {"value": 1 / 3, "low": low, "high": high}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: accuracy(np.array([], bool)), "`right` must be a bool array of 1"),
        (lambda: transfer(answers("01")), "of 3 axes, not empty. Received: bool"),
        (lambda: error_agreement(np.ones((2, 3))), "Received: float64, shape"),
        (lambda: sign_agreement(np.full((2, 3), 0.5)), "of -1, 0 and 1"),
        (lambda: calibration(PROBS * 2, Y), "`probs` must be probabilities"),
        (lambda: calibration(PROBS * np.nan, Y), "`probs` must be probabilities"),
        (lambda: calibration(PROBS, Y + 1), "`y` must be labels from 0 to 2"),
        (lambda: calibration(PROBS, Y[:2]), r"`y` must be `\(3,\)` integer labels"),
        (
            lambda: classes(Y, Y > 0, Y[:2] > 0, Y, num_classes=3),
            "`robust` must be one answer per image. Received: 2 for 3 images",
        ),
        (
            lambda: classes(Y, Y > 0, Y > 0, Y - 1, num_classes=3),
            "`predicted` must be labels from 0 to 2. Received: -1",
        ),
    ],
)
def test_errors(call, error):
    with pytest.raises(ValueError, match=error):
        call()
