import numpy as np
import pytest
from numpy.testing import assert_allclose

from advens.models.ensemble import Ensemble
from advens.models.votes import log_vote, mean_log_probs, vote

# Three members' probabilities of three classes for two images.
PROBS = np.array(
    [
        [[0.98, 0.01, 0.01], [0.4, 0.4, 0.2]],
        [[0.30, 0.60, 0.10], [0.1, 0.2, 0.7]],
        [[0.25, 0.60, 0.15], [0.2, 0.7, 0.1]],
    ]
)
LOGITS = np.log(PROBS).astype("float32")


def test_mean_probability():
    want = [[0.51, 0.403333, 0.086667], [0.233333, 0.433333, 0.333333]]
    assert_allclose(vote(LOGITS, "mean_probability"), want, rtol=1e-4, atol=0)


def test_mean_logit_is_the_normalized_geometric_mean():
    means = np.prod(PROBS, axis=0) ** (1 / 3)
    want = means / means.sum(axis=1, keepdims=True)
    assert_allclose(vote(LOGITS, "mean_logit"), want, rtol=1e-5, atol=0)


def test_majority_has_one_vote_per_member_and_the_mean_as_one_more():
    """Two members vote for class 1; of three single votes the mean decides."""
    votes = np.array([[1, 2, 0], [1, 1, 1]])
    want = (votes + PROBS.mean(axis=0)) / 4
    assert_allclose(vote(LOGITS, "majority"), want, rtol=1e-5, atol=0)
    assert want.argmax(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize("votes", ["mean_probability", "mean_logit", "majority"])
def test_logarithms(votes):
    got = np.exp(log_vote(LOGITS, votes))
    assert_allclose(got, vote(LOGITS, votes), rtol=1e-5, atol=0)
    assert_allclose(got.sum(axis=1), 1, rtol=1e-5, atol=0)


def test_mean_log_probs_does_not_overflow():
    logits = np.array([[[1e3, 0.0], [0, 0]], [[0, 1e3], [np.log(3), 0]]], "float32")
    want = np.log([[0.5, 0.5], [0.625, 0.375]])
    assert_allclose(mean_log_probs(logits), want, rtol=1e-6, atol=1e-6)


def test_unknown_votes(linear):
    with pytest.raises(ValueError, match=r"`votes` must be one of .*votes='median'"):
        Ensemble(linear[0].members, votes="median")
