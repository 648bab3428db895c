from statistics import NormalDist

import numpy as np
import pytest
from numpy.testing import assert_allclose

from advens.statistics import wilson_interval


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
    # Wilson's definition: a true accuracy in whose normal approximation the observed
    # one lies exactly z standard deviations off.
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
