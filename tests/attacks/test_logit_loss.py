import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

from advens import backend
from advens.attacks.logit_loss import LogitLoss
from advens.attacks.losses import dlr, exact_cross_entropies, normalized, soft_vote

# Two members, three images, five classes.
LOGITS = np.random.default_rng(0).normal(0, 3, (2, 3, 5)).astype("float32")
Y, TARGETS = np.array([0, 1, 4]), np.array([2, 0, 3])


def log_softmax(logits):
    logits = logits.astype("float64")
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_exact_cross_entropy():
    """Keras's is 0 for the last two, and its order is lost."""
    logits = np.array([[1, 0, 0], [40, 0, 0], [60, 0, 0]], "float32")
    got = exact_cross_entropies(logits, np.array([0, 0, 0]))
    want = [np.log(1 + 2 / np.e), 2 * np.exp(-40), 2 * np.exp(-60)]
    assert_allclose(got, want, rtol=1e-5, atol=0)
    got = exact_cross_entropies(LOGITS[0], Y)
    assert_allclose(got, -log_softmax(LOGITS[0])[range(3), Y], rtol=1e-5, atol=0)


def test_difference_of_logits_ratio():
    """(4 - 1) / (4 - 2), and (3 - 1) / (4 - (2 + 1) / 2) towards class 1."""
    logits = np.array([[1, 3, 4, 2, 0]], "float32")
    assert_allclose(dlr(logits, np.array([0])), [1.5], rtol=1e-6, atol=0)
    got = dlr(logits, np.array([0]), np.array([1]))
    assert_allclose(got, [0.8], rtol=1e-6, atol=0)
    # It does not change with the scale.
    assert_allclose(dlr(1e4 * logits, np.array([0])), [1.5], rtol=1e-5, atol=0)


@pytest.mark.parametrize(("classes", "targets"), [(2, None), (2, [1]), (3, [2])])
def test_with_few_classes_the_difference_is_not_divided(classes, targets):
    logits = np.array([[5, 2, 1][:classes]], "float32")
    got = dlr(logits, np.array([0]), targets and np.array(targets))
    assert_allclose(got, [logits[0, targets[0] if targets else 1] - 5], rtol=1e-6)


def test_soft_vote_is_of_logits_of_one_scale():
    scaled = LOGITS / LOGITS.std(axis=-1, keepdims=True)
    want = np.log(np.exp(log_softmax(scaled)).mean(axis=0))
    assert_allclose(soft_vote(LOGITS), want, rtol=1e-4, atol=1e-6)
    factors = np.array([1e-3, 1e3], "float32")[:, None, None]
    assert_allclose(soft_vote(LOGITS * factors), want, rtol=1e-4, atol=1e-6)


def test_normalized_gradients():
    grads = np.array([[[1, -3], [0, 0]], [[2e-38, 0], [5, 5]]], "float32")
    want = [[[0.25, -0.75], [0, 0]], [[1, 0], [0.5, 0.5]]]
    assert_allclose(normalized(grads), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("objective", ["cross_entropy", "dlr", "targeted_dlr"])
@pytest.mark.parametrize(
    ("source", "votes"),
    [
        ("mean_member", "mean_probability"),
        ("ensemble", "mean_probability"),
        ("ensemble", "mean_logit"),
        ("mean_logit", "mean_probability"),
        ("adaptive", "majority"),
    ],
)
def test_the_gradient_is_that_of_the_losses(source, votes, objective):
    """Directions times sizes are what the backend differentiates, and are of size 1."""
    loss = LogitLoss(source, objective, votes)
    shape = (2, 1) if loss.is_of_one else (1, 2)
    logits = LOGITS.reshape(*shape, 3, 5)
    y = np.broadcast_to(Y, (*shape, 3)).copy()
    targets = TARGETS if objective == "targeted_dlr" else None
    directions, log_sizes = loss.gradients(logits, y, targets)
    got = np.array(directions) * np.exp(np.array(log_sizes))[..., None]
    want = backend.input_gradient(
        lambda z: loss.losses(z, y, targets), ops.convert_to_tensor(logits)
    )
    assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    largest = np.abs(np.array(directions)).max(axis=-1)
    assert_allclose(largest, 1, rtol=1e-5, atol=0)


def test_losses_of_one_classifier_and_of_several():
    y = np.broadcast_to(Y, (2, 1, 3))
    logits = LOGITS[:, None]
    own = -log_softmax(LOGITS)[:, range(3), Y]
    got = LogitLoss("mean_member").losses(LOGITS[None], y.reshape(1, 2, 3), None)
    assert_allclose(got, own.mean(axis=0), rtol=1e-5, atol=0)
    got = LogitLoss("ensemble").losses(logits, y, None)
    assert_allclose(got, -np.log(np.exp(-own).mean(axis=0)), rtol=1e-5, atol=0)
    got = LogitLoss("mean_logit").losses(logits, y, None)
    want = -log_softmax(LOGITS.mean(axis=0))[range(3), Y]
    assert_allclose(got, want, rtol=1e-5, atol=0)
