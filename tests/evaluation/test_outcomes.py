import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens.evaluation.outcomes import (
    Outcomes,
    join_outcomes,
    pack_outcomes,
    unpack_outcomes,
    worst_case,
)


def random_outcomes(num_members, num_images, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (num_members, num_images), (num_images,), (num_images,)
    return Outcomes(*(rng.random(shape) < 0.5 for shape in shapes))


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.dtype == bool
        assert_array_equal(a, b)


def test_worst_case_is_right_after_every_attack():
    right = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]], bool)
    # Neither the members nor the zero gradients count.
    outcomes = [Outcomes(~row[None], row, ~row) for row in right]
    assert_array_equal(worst_case(outcomes), [True, False, False, False])
    assert_array_equal(worst_case(outcomes[:1]), right[0])
    with pytest.raises(ValueError, match="at least one attack. Received: none"):
        worst_case([])


def test_join_keeps_the_order_of_the_images():
    whole = random_outcomes(3, 11)
    parts = [
        Outcomes(*(array[..., rows] for array in whole))
        for rows in (slice(0, 4), slice(4, 5), slice(5, 11))
    ]
    assert_same(join_outcomes(parts), whole)


# Not all of these fill their last byte.
@pytest.mark.parametrize("num_images", [1, 7, 8, 9, 1000])
def test_packed_outcomes_come_back(num_images):
    outcomes = [random_outcomes(3, num_images, seed) for seed in range(2)]
    arrays = pack_outcomes(outcomes)
    # One bit per answer: 3 members, the ensemble and the zero gradient, twice.
    sizes = [array.nbytes for name, array in arrays.items() if name != "num_images"]
    assert sum(sizes) == 2 * 5 * -(-num_images // 8)
    unpacked = unpack_outcomes(arrays)
    assert len(unpacked) == 2
    for got, want in zip(unpacked, outcomes, strict=True):
        assert_same(got, want)


def test_names_of_packed_arrays():
    """What was stored is read by these names."""
    arrays = pack_outcomes([random_outcomes(2, 3)] * 2)
    fields = ("members", "ensemble", "zero_gradient")
    names = {f"{i}_{field}" for i in range(2) for field in fields}
    assert set(arrays) == {"num_images", *names}
    assert arrays["num_images"] == 3
