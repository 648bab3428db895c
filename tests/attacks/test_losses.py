import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.losses import cross_entropies, logit_gradients, weighted_sum

# Softmaxes (.5, .25, .25), (.1, .1, .8) and, to float32's precision, (1, 0, 0).
LOGITS = np.log([[2, 1, 1], [1, 1, 8], [1, 1e-9, 3e-9]]).astype("float32")


def clipped_cross_entropies(logits, y):
    return cross_entropies(logits, y, clipped=True)


LOSSES = [cross_entropies, clipped_cross_entropies]


@pytest.mark.parametrize("loss", LOSSES)
def test_cross_entropies_by_hand(loss):
    got = loss(LOGITS[:2], np.array([1, 2]))
    assert_allclose(got, np.log([4, 1.25]), rtol=1e-5, atol=0)


def test_only_the_clipped_loss_has_bounds():
    logits, y = LOGITS[[2, 2]], np.array([0, 1])
    assert_allclose(cross_entropies(logits, y)[1], np.log(1e9), rtol=1e-5)
    # -log(1 - 1e-7) and -log(1e-7); float32 rounds the former to 2**-23.
    got = clipped_cross_entropies(logits, y)
    assert_allclose(got, [2**-23, np.log(1e7)], rtol=1e-5)


def gradient_of(loss, logits, y):
    """Return the gradient as the backend computes it."""
    gradient = backend.input_gradient(
        lambda logits: loss(logits, ops.convert_to_tensor(y)),
        ops.convert_to_tensor(logits),
    )
    return ops.convert_to_numpy(gradient)


def exact_gradient(logits, y):
    directions, log_errors = logit_gradients(logits, y)
    return ops.convert_to_numpy(directions * ops.exp(log_errors)[..., None])


def test_only_the_exact_gradient_keeps_the_term_of_a_certain_label():
    """The gradient is softmax - onehot, whose entries sum to 0: -4e-9, 1e-9, 3e-9."""
    exact = exact_gradient(LOGITS[2:], np.array([0]))
    assert_allclose(exact, [[-4e-9, 1e-9, 3e-9]], rtol=1e-4)
    rounded = gradient_of(cross_entropies, LOGITS[2:], np.array([0]))
    assert_allclose(rounded, [[0, 1e-9, 3e-9]], rtol=1e-4, atol=1e-10)
    clipped = gradient_of(clipped_cross_entropies, LOGITS[2:], np.array([0]))
    assert_array_equal(clipped, [[0, 0, 0]])


def test_gradient_is_softmax_minus_onehot():
    y, want = np.array([1, 2]), [[0.5, -0.75, 0.25], [0.1, 0.1, -0.2]]
    assert_allclose(exact_gradient(LOGITS[:2], y), want, rtol=1e-5, atol=1e-6)
    for loss in LOSSES:
        got = gradient_of(loss, LOGITS[:2], y)
        assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lead", [0, 20, 104, 1e4])
def test_logit_gradients_however_certain_the_label(lead):
    """Label 1 leads by `lead`; the others are as 3 to 1, or there is one other."""
    logits = np.array([[np.log(3), lead, 0], [np.log(3), lead, -1e9]], "float32")
    directions, log_errors = logit_gradients(logits, np.array([1, 1]))
    assert_allclose(directions, [[0.75, -1, 0.25], [1, -1, 0]], rtol=1e-6, atol=0)
    want = [np.log(4) - np.logaddexp(np.log(4), lead)]
    assert_allclose(log_errors[:1], want, rtol=1e-5, atol=0)
    # Two classes: where the label is wrong, only log(1 - p_y) changes.
    pair = np.array([[0, lead], [lead, 0]], "float32")
    directions, log_errors = logit_gradients(pair, np.array([1, 1]))
    assert_array_equal(directions, [[1, -1], [1, -1]])
    want = [-np.logaddexp(0, lead), -np.logaddexp(0, -lead)]
    assert_allclose(log_errors, want, rtol=1e-6, atol=1e-7)


def test_labels_that_are_no_class():
    directions, _ = logit_gradients(LOGITS, np.array([-1, 2, 3]))
    assert_array_equal(np.isnan(directions).all(axis=-1), [True, False, True])


def images(*pixels):
    """Return gradients of shape (members, images, 2, 1, 1)."""
    return ops.convert_to_tensor(np.array(pixels)[..., None, None], "float32")


def test_weighted_sum():
    # Of image 1, member 1 is zero, so that its weight does not count.
    grads = images([[1, 2], [3, -1e-5]], [[-1, 4], [0, 0]])
    logs = np.log([[0.5, 0.25], [2, 1]]).astype("float32")
    got = ops.convert_to_numpy(weighted_sum(grads, logs))[..., 0, 0]
    assert_allclose(got, [[-1.5, 9], [0.75, -0.25e-5]], rtol=1e-6)
    # The largest summand, 3 exp(-200), becomes exp(-60).
    logs = np.array([[-50, -200], [-52, -0.0]], "float32")
    got = ops.convert_to_numpy(weighted_sum(grads, logs))[..., 0, 0]
    sums = np.exp(-50) * np.array([1, 2]) + np.exp(-52) * np.array([-1, 4])
    assert_allclose(got, [sums, np.exp(-60) * np.array([1, -1e-5 / 3])], rtol=1e-5)
    assert_array_equal(weighted_sum(0 * grads, logs), np.zeros((2, 2, 1, 1)))


def test_weighted_sum_hides_no_nan():
    grads = images([[1, 1], [1, 1]], [[np.nan, 1], [np.inf, 1]])
    got = ops.convert_to_numpy(weighted_sum(grads, np.zeros((2, 2), "float32")))
    assert np.isnan(got[0]).any()
    assert got[1, 0] == np.inf
