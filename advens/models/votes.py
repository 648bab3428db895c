"""How an ensemble makes one answer of its members' answers."""

from typing import Literal

from keras import ops

from advens.arrays import Tensor

Votes = Literal["mean_probability", "mean_logit", "majority"]


def vote(logits: Tensor, votes: Votes) -> Tensor:
    """Return the probabilities of the ensemble, `(n, k)`.

    - `"mean_probability"`: the mean of the members' probabilities (Section 3 of the
      paper).
    - `"mean_logit"`: the softmax of the mean of their logits.
    - `"majority"`: each member has one vote, for its most likely class. The mean
      probability counts as one more, divided vote, so that it decides between classes
      with equally many votes.

    Args:
        logits: `(m, n, k)`, the members' logits.
        votes: how they vote.
    """
    if votes == "mean_logit":
        return ops.softmax(ops.mean(logits, axis=0))
    mean = ops.mean(ops.softmax(logits), axis=0)
    if votes == "mean_probability":
        return mean
    single = ops.one_hot(ops.argmax(logits, axis=-1), logits.shape[-1])
    return (ops.sum(single, axis=0) + mean) / (logits.shape[0] + 1)


def log_vote(logits: Tensor, votes: Votes) -> Tensor:
    """Return the logarithms of `vote`, `(n, k)`, without underflow.

    Args:
        logits: see `vote`.
        votes: see `vote`.
    """
    if votes == "mean_logit":
        return ops.log_softmax(ops.mean(logits, axis=0))
    if votes == "mean_probability":
        return mean_log_probs(logits)
    return ops.log(vote(logits, votes))


def mean_log_probs(logits: Tensor) -> Tensor:
    """Return log(mean of the members' probabilities), `(n, k)`, without overflow.

    It is computed as logsumexp(log p_i) - log m.

    Args:
        logits: `(m, n, k)`.
    """
    log_probs = ops.log_softmax(logits, axis=-1)
    return ops.logsumexp(log_probs, axis=0) - ops.log(float(logits.shape[0]))
