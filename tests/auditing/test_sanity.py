import numpy as np
import pytest

from advens.auditing import sanity


def flags(*counts):
    """Return so many True, then so many False, and so on."""
    values = [i % 2 == 0 for i, count in enumerate(counts) for _ in range(count)]
    return np.array(values)


ALL, NONE = flags(100), flags(0, 100)


@pytest.mark.parametrize(
    ("line", "verdict", "reason"),
    [
        (
            sanity.noise(flags(90, 10), flags(80, 20), flags(40, 60)),
            "passed",
            "Noise leaves 80.0 %, gradients leave 40.0 %; 0.0 % of the images fall to "
            "noise alone.",
        ),
        (
            # Noise breaks 10 images that are right without it, gradients none of them.
            sanity.noise(flags(90, 10), flags(80, 20), flags(85, 15)),
            "failed",
            "Noise leaves 80.0 %, gradients leave 85.0 %; 5.0 % of the images fall to "
            "noise alone.",
        ),
        (
            sanity.transfer(flags(50, 50), flags(43, 57)),
            "failed",
            "7.0 % of the images resist the attacks on the ensemble, and fall to an "
            "attack on a single member.",
        ),
        # Two of a hundred may be chance.
        (sanity.transfer(flags(50, 50), flags(48, 52)), "passed", "2.0 % of"),
        (sanity.black_box(flags(50, 50), flags(40, 60)), "failed", "10.0 % of the"),
        (sanity.black_box(flags(50, 50), flags(50, 50)), "passed", "0.0 % of the"),
        (sanity.eps(flags(40, 60), flags(45, 55)), "failed", "40.0 % at eps and 45.0"),
        (sanity.eps(flags(40, 60), flags(5, 95)), "passed", "40.0 % at eps and 5.0 %"),
        (sanity.unbounded(flags(12, 88), 10), "passed", "is 12.0 %; chance is 10.0 %"),
        (sanity.unbounded(flags(30, 70), 10), "failed", "is 30.0 %; chance is 10.0 %"),
        (sanity.unbounded(flags(30, 70), 2), "passed", "is 30.0 %; chance is 50.0 %"),
        (sanity.steps(flags(40, 60), flags(39, 61)), "passed", "leaves 40.0 %, and 39"),
        (sanity.steps(flags(40, 60), flags(30, 70)), "failed", "leaves 40.0 %, and 30"),
        (
            sanity.iterative(flags(60, 40), flags(20, 80)),
            "passed",
            "step leaves 60.0 %",
        ),
        (
            sanity.iterative(flags(20, 80), flags(60, 40)),
            "failed",
            "step leaves 20.0 %",
        ),
        (sanity.zero_gradients(NONE, NONE), "passed", "at 0.0 % of the images"),
        (sanity.zero_gradients(flags(9, 91), NONE), "failed", "at 9.0 % of the images"),
        (
            sanity.zero_gradients(NONE, ALL),
            "failed",
            "100.0 % of those that",
        ),
        (sanity.zero_gradients(NONE, flags()), "passed", "for 0.0 % of those"),
        (
            sanity.saturation(flags(60, 40), NONE, flags(70, 30)),
            "passed",
            "A probability rounds to 1 on 70.0 % of the images, and the framework's "
            "own gradient is exactly zero on 60.0 %: these answers mask gradients",
        ),
        (sanity.saturation(ALL, ALL, NONE), "passed", "gradients do not vanish there"),
        (sanity.randomness(NONE, 1), "passed", "Two calls give the same"),
        (sanity.randomness(ALL, 1), "failed", "audit(..., num_draws=10) or more"),
        (sanity.randomness(ALL, 10), "passed", "a mean over 10 draws"),
        (sanity.precision({}), "passed", "float32 or better"),
        (sanity.precision({1: "float16"}), "not judged", "members[1] in float16: a"),
        (sanity.numbers(), "passed", "None was NaN"),
    ],
)
def test_verdict_and_reason(line, verdict, reason):
    assert line["verdict"] == verdict
    assert reason in line["reason"]


def test_of_few_images_only_a_clear_share_counts():
    """One of ten is less than 1 % in the worst case: its interval begins at 1.8 %."""
    assert sanity.transfer(flags(10), flags(9, 1))["verdict"] == "failed"
    assert sanity.transfer(flags(30), flags(29, 1))["verdict"] == "passed"
