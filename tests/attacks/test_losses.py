import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.losses import cross_entropies, mean_log_probs, unrounded

# Softmaxes (.5, .25, .25), (.1, .1, .8) and, to float32's precision, (1, 0, 0).
LOGITS = np.log([[2, 1, 1], [1, 1, 8], [1, 1e-9, 3e-9]]).astype("float32")


@pytest.mark.parametrize("loss", ["exact", "logits", "clipped"])
def test_cross_entropies_by_hand(loss):
    got = cross_entropies(LOGITS[:2], np.array([1, 2]), loss)
    assert_allclose(got, np.log([4, 1.25]), rtol=1e-5, atol=0)


def test_only_the_clipped_loss_has_bounds():
    logits, y = LOGITS[[2, 2]], np.array([0, 1])
    for loss in ("exact", "logits"):
        assert_allclose(cross_entropies(logits, y, loss)[1], np.log(1e9), rtol=1e-5)
    # -log(1 - 1e-7) and -log(1e-7); float32 rounds the former to 2**-23.
    got = cross_entropies(logits, y, "clipped")
    assert_allclose(got, [2**-23, np.log(1e7)], rtol=1e-5)


def gradient_of(loss, logits, y):
    def losses(logits):
        return cross_entropies(logits, ops.convert_to_tensor(y), loss)

    gradient = backend.input_gradient(losses, ops.convert_to_tensor(logits))
    return ops.convert_to_numpy(gradient)


def test_only_the_exact_loss_keeps_the_term_of_a_certain_label():
    """The gradient is softmax - onehot, whose entries sum to 0: -4e-9, 1e-9, 3e-9."""
    exact = gradient_of("exact", LOGITS[2:], np.array([0]))
    assert_allclose(exact, [[-4e-9, 1e-9, 3e-9]], rtol=1e-4)
    rounded = gradient_of("logits", LOGITS[2:], np.array([0]))
    assert_allclose(rounded, [[0, 1e-9, 3e-9]], rtol=1e-4, atol=1e-10)
    clipped = gradient_of("clipped", LOGITS[2:], np.array([0]))
    assert_array_equal(clipped, [[0, 0, 0]])


@pytest.mark.parametrize("loss", ["exact", "logits", "clipped"])
def test_gradient_is_softmax_minus_onehot(loss):
    got = gradient_of(loss, LOGITS[:2], np.array([1, 2]))
    want = [[0.5, -0.75, 0.25], [0.1, 0.1, -0.2]]
    assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_unrounded_logits_have_the_same_softmax():
    assert_allclose(ops.softmax(unrounded(LOGITS)), ops.softmax(LOGITS), rtol=1e-5)


def test_mean_log_probs():
    logits = np.array([[[1e3, 0.0], [0, 0]], [[0, 1e3], [np.log(3), 0]]], "float32")
    want = np.log([[0.5, 0.5], [0.625, 0.375]])
    assert_allclose(mean_log_probs(logits), want, rtol=1e-6, atol=1e-6)
