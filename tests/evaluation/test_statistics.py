from statistics import NormalDist

import numpy as np
import pytest
from numpy.testing import assert_allclose

from advens.evaluation.statistics import (
    holm,
    level_test,
    mcnemar,
    paired_interval,
    paired_test,
    wilson_interval,
)


# Newcombe 1998, "Two-sided confidence intervals for the single proportion",
# Statistics in Medicine 17(8), Table I, method 3.
@pytest.mark.parametrize(
    ("right", "n", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_published_examples(right, n, interval):
    assert_allclose(wilson_interval(right / n, n), interval, rtol=0, atol=5.1e-5)


# Worked out by hand from the formula with z = 1.96 and z = 2.576: with p = 1/2 it is
# 1/2 ± z / 2 sqrt(n + z²), with p = 1 the lower bound is n / (n + z²).
@pytest.mark.parametrize(
    ("accuracy", "n", "confidence", "interval"),
    [
        (0.5, 10, 0.95, (0.23659, 0.76341)),
        (0.5, 10_000, 0.95, (0.49020, 0.50980)),
        (0.5, 10_000, 0.99, (0.48712, 0.51288)),
        (1.0, 1, 0.95, (0.20654, 1.0)),
        (1.0, 100, 0.95, (0.96301, 1.0)),
    ],
)
def test_worked_out_by_hand(accuracy, n, confidence, interval):
    got = wilson_interval(accuracy, n, confidence=confidence)
    assert_allclose(got, interval, rtol=0, atol=1e-5)


ACCURACIES = [0.0, 1e-6, 0.0906, 1 / 3, 0.5, 0.99123, 1 - 1e-6, 1.0]
SIZES = [1, 7, 360, 10_000]
CONFIDENCES = [0.5, 0.9, 0.95, 0.999]


@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_bounds_are_where_the_score_test_turns(accuracy, n, confidence):
    low, high = wilson_interval(accuracy, n, confidence=confidence)
    assert 0 <= low < high <= 1
    assert low - 1e-15 <= accuracy <= high + 1e-15
    # Wilson's definition: if a bound were the true accuracy, the observed accuracy
    # would lie exactly z standard deviations from it, in the normal approximation.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    bounds = np.array([low, high])
    squares = z**2 * bounds * (1 - bounds) / n
    assert_allclose((accuracy - bounds) ** 2, squares, rtol=1e-6, atol=1e-12)
    mirrored = wilson_interval(1 - accuracy, n, confidence=confidence)
    assert_allclose(mirrored, (1 - high, 1 - low), rtol=1e-9, atol=1e-12)


def test_more_images_narrow_and_more_confidence_widens():
    def width(n, confidence):
        low, high = wilson_interval(0.9, n, confidence=confidence)
        return high - low

    assert (np.diff([width(n, 0.95) for n in SIZES]) < 0).all()
    assert (np.diff([width(360, confidence) for confidence in CONFIDENCES]) > 0).all()
    assert wilson_interval(0.9, 360) == wilson_interval(0.9, 360, confidence=0.95)


@pytest.mark.parametrize(
    ("accuracy", "n", "confidence", "rule"),
    [
        (-0.01, 10, 0.95, r"`accuracy` must be in \[0, 1\]. Received: accuracy=-0.01"),
        (99.12, 10, 0.95, r"`accuracy` must be in \[0, 1\]. Received: accuracy=99.12"),
        (np.nan, 10, 0.95, r"`accuracy` must be in \[0, 1\]. Received: accuracy=nan"),
        (0.5, 0, 0.95, "`n` must be >= 1. Received: n=0"),
        (0.5, -3, 0.95, "`n` must be >= 1. Received: n=-3"),
        (0.5, 10, 0, r"`confidence` must be in \(0, 1\). Received: confidence=0"),
        (0.5, 10, 1.0, r"`confidence` must be in \(0, 1\). Received: confidence=1.0"),
        (0.5, 10, 95, r"`confidence` must be in \(0, 1\). Received: confidence=95"),
    ],
)
def test_impossible_arguments(accuracy, n, confidence, rule):
    with pytest.raises(ValueError, match=rule):
        wilson_interval(accuracy, n, confidence=confidence)


def answers(*, both=0, only_a=0, only_b=0, neither=0):
    """Return the right answers of two classifiers, `(1, n)` each."""
    counts = (both, only_a, only_b, neither)
    truth = np.array([[True, True, False, False], [True, False, True, False]])
    return tuple(np.repeat(bits, counts)[None] for bits in truth)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        # Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs
        # data", BMC Medical Research Methodology 13:91, airway hyper-responsiveness:
        # 2 (1 + 8) / 2^8.
        (1, 7, 0.0703),
        # By hand: 2 / 2^6; 2 (1 + 5 + 10) / 2^5; and no images that differ.
        (6, 0, 0.03125),
        (3, 2, 1.0),
        (4, 4, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar(only_a, only_b, p):
    for both, neither in ((1, 12), (500, 0)):
        a, b = answers(both=both, only_a=only_a, only_b=only_b, neither=neither)
        assert_allclose(mcnemar(a[0], b[0]), p, rtol=0, atol=5e-5)
        assert mcnemar(a[0], b[0]) == mcnemar(b[0], a[0]) == paired_test(a, b)


def test_paired_test_by_hand():
    # The test adds one image to each: 30 and 10 of 100 differ, so that the mean is
    # 0.2 and the variance 0.4 - 0.2² = 0.6².
    a, b = answers(both=50, only_a=29, only_b=9, neither=10)
    two_sigma = 2 * NormalDist().cdf(-2)
    for margin in (0.2 - 0.12, 0.2 + 0.12):
        assert_allclose(paired_test(a, b, margin=margin), two_sigma, rtol=1e-9)
        assert_allclose(paired_test(b, a, margin=-margin), two_sigma, rtol=1e-9)
    # Three runs that agree count as one.
    again = paired_test(np.repeat(a, 3, axis=0), b, margin=0.08)
    assert_allclose(again, two_sigma, rtol=1e-9)
    # Two runs win 20 images each, none in common: of 100 differences 40 are 1/2, and
    # the added two are 1 and -1.
    wins = np.zeros((2, 98), bool)
    wins[0, :20] = wins[1, 20:40] = True
    variance = (40 * 0.25 + 2) / 100 - 0.2**2
    z = 0.2 / np.sqrt(variance / 100)
    p = paired_test(wins, np.zeros((1, 98), bool))
    assert_allclose(p, 2 * NormalDist().cdf(-z), rtol=1e-4)


def test_many_equal_answers_exclude_a_margin_and_few_do_not():
    assert paired_test(*answers(both=10), margin=-0.01) > 0.9
    assert paired_test(*answers(both=10_000), margin=-0.01) < 1e-9


def test_paired_test_keeps_its_level_where_runs_are_alike():
    rng = np.random.default_rng(0)
    rejected = []
    for _ in range(1000):
        # Five runs that mostly fail on the same images, and a single independent run.
        hard = rng.uniform(size=200)
        runs = rng.uniform(size=(5, 200)) < 0.1 + 0.8 * (hard < 0.5)
        single = rng.uniform(size=(1, 200)) < 0.5
        rejected.append(paired_test(runs, single) < 0.05)
    assert 0.03 < np.mean(rejected) < 0.07


def test_level_test_is_the_inverse_of_the_interval():
    # By hand: (0.6 - 0.5) / sqrt(0.25 / 100) = 2.
    a, _ = answers(only_a=60, neither=40)
    assert_allclose(level_test(a, 0.5), 2 * NormalDist().cdf(-2), rtol=1e-9)
    assert_allclose(level_test(~a, 0.5), 2 * NormalDist().cdf(-2), rtol=1e-9)
    for count in (3, 70, 99):
        a, _ = answers(only_a=count, neither=100 - count)
        for bound in wilson_interval(count / 100, 100):
            assert_allclose(level_test(a, bound), 0.05, rtol=1e-6)


def test_holm_by_hand():
    # 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04, which is raised to the one before it.
    got = holm([0.01, 0.04, 0.03, 0.005])
    assert_allclose(got, [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
    assert_allclose(holm([0.6, 0.7, 0.04]), [1, 1, 0.12], rtol=1e-12)
    assert_allclose(holm([0.04]), [0.04], rtol=1e-12)


RIGHT = np.ones((1, 3), bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_test(RIGHT, RIGHT[:, :2]), "Received: 3 and 2 images"),
        (lambda: paired_test(RIGHT[0], RIGHT), r"Received: bool, shape \(3,\)"),
        (lambda: paired_test(RIGHT, RIGHT * 1.0), r"Received: float64, shape \(1, 3\)"),
        (lambda: level_test(RIGHT[:, :0], 0.5), r"Received: bool, shape \(1, 0\)"),
        (lambda: level_test(RIGHT, 1.0), r"must be in \(0, 1\). Received: level=1.0"),
    ],
)
def test_impossible_answers(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Worked out by hand with d = [1, 0, 0, 0] and the two images that are added:
# 1/6 ± z sqrt((3 / 6 - 1 / 36) / 6).
def test_paired_interval_worked_out_by_hand():
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 0, 0], bool)
    half = 1.959964 * (17 / 216) ** 0.5
    assert_allclose(paired_interval(a, b), (1 / 6 - half, 1 / 6 + half), atol=1e-5)
    assert_allclose(paired_interval(b, a), (-1 / 6 - half, -1 / 6 + half), atol=1e-5)
    low, high = paired_interval(a, b, confidence=0.5)
    assert 1 / 6 - half < low < 1 / 6 < high < 1 / 6 + half


def test_paired_interval_holds_zero_where_the_paired_test_does_not_reject():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a = rng.uniform(size=(1, 50)) < 0.7
        b = np.where(rng.uniform(size=(1, 50)) < 0.3, rng.uniform() < 0.5, a)
        # Two equal runs of `a`: so that it is Wald's test, not McNemar's.
        p = paired_test(np.repeat(a, 2, axis=0), b)
        low, high = paired_interval(a[0], b[0])
        assert (p > 0.05) == (low <= 0 <= high)


def test_paired_interval_stays_within_its_bounds():
    a, b = np.ones(3, bool), np.zeros(3, bool)
    assert paired_interval(a, b, confidence=0.999)[1] == 1
    assert paired_interval(b, a, confidence=0.999)[0] == -1
