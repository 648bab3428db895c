import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_array_equal

from advens.attacks.queries import in_batches


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (1, 250, [16]),
        (48, 250, [16, 16, 16]),
        (49, 250, [63]),
        (127, 250, [63, 63, 16]),
        (189, 250, [63, 63, 63]),
        (190, 250, [250]),
        (620, 250, [250, 250, 63, 63]),
        (9, 32, [8, 8]),
        (3, 5, [5]),
    ],
)
def test_batches_have_three_shapes(count, batch_size, sizes):
    called = []

    def twice(x):
        called.append(len(x))
        return 2 * x, ops.equal(x, 0)

    x = np.arange(count)
    doubled, is_zero = in_batches(twice, (x,), batch_size)
    assert_array_equal(doubled, 2 * x)
    assert_array_equal(is_zero, x == 0)
    assert called == sizes
