import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advens.attacks.balls import (
    lengths,
    projected,
    radii,
    random_start,
    spread,
    steepest,
)

X = np.array([[0.5, 0.5], [0.9, 0.1]], "float32")


def test_lengths():
    changes = np.array([[3, -4], [0, 1]], "float32")
    assert_array_equal(lengths(changes, "linf"), [4, 1])
    assert_array_equal(lengths(changes, "l2"), [5, 1])


@pytest.mark.parametrize(
    ("norm", "want"),
    [
        # The second image meets the box: its first pixel ends at 1.
        ("linf", [[0.6, 0.4], [1.0, 0.3]]),
        ("l2", [[0.56, 0.42], [1.0, 0.26]]),
    ],
)
def test_projection(norm, want):
    """The changes are (.3, -.4) and (.6, .8), of length .5 and 1 in L2."""
    x_adv = X + np.array([[0.3, -0.4], [0.6, 0.8]], "float32")
    got = projected(x_adv, X, np.array([0.1, 0.2], "float32"), norm)
    assert_allclose(got, want, rtol=0, atol=1e-6)
    assert got.dtype == np.float32


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_within_the_ball_is_moved(norm):
    x_adv = X + np.array([[0.05, -0.05], [0, 0]], "float32")
    eps = np.array([0.1, 0.1], "float32")
    assert_allclose(projected(x_adv, X, eps, norm), x_adv, rtol=0, atol=1e-7)


def test_steepest_direction_of_tiny_and_zero_gradients():
    grads = np.array([[3e-30, -4e-30], [0, 0]], "float32")
    assert_array_equal(steepest(grads, "linf"), [[1, -1], [0, 0]])
    assert_allclose(steepest(grads, "l2"), [[0.6, -0.8], [0, 0]], rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball(norm):
    x = np.full((4000, 2), 0.5, "float32")
    eps = np.full(4000, 0.2, "float32")
    starts = random_start(x, eps, norm, np.random.default_rng(0))
    sizes = lengths(starts - x, norm)
    assert sizes.max() <= 0.2 * (1 + 1e-5)
    # Of a ball in two dimensions, a quarter lies within half its radius.
    assert_allclose(np.mean(sizes < 0.1), 0.25, rtol=0, atol=0.03)
    assert_allclose((starts - x).mean(axis=0), 0, rtol=0, atol=0.01)


def test_one_radius_per_image():
    assert_allclose(radii(0.1, X), [0.1, 0.1], rtol=1e-6, atol=0)
    assert_allclose(radii(np.array([0.1, 0.3]), X), [0.1, 0.3], rtol=1e-6, atol=0)
    assert spread(np.ones(3), np.ones((3, 2, 2, 1))).shape == (3, 1, 1, 1)


@pytest.mark.parametrize("eps", [0, -0.1, np.nan, np.inf, [0.1, 0.0], [[0.1, 0.1]]])
def test_bad_eps(eps):
    with pytest.raises(ValueError, match="`eps` must be > 0 and finite. Received: eps"):
        radii(eps, X)
