"""The losses whose gradients attacks follow."""

import math

from keras import ops

from advens.arrays import Tensor
from advens.attacks.threat import GradientLoss

# Where Keras clips probabilities, in 2017 as today.
_CLIP = 1e-7


def cross_entropies(logits: Tensor, y: Tensor, loss: GradientLoss) -> Tensor:
    """Return the cross-entropy of each image.

    Args:
        logits: `(..., num_classes)` float32.
        y: `(...)` int labels.
        loss: see `Threat`.

    Returns:
        `(...)` float32.
    """
    if loss == "clipped":
        probs = ops.take_along_axis(ops.softmax(logits), y[..., None], axis=-1)
        return -ops.log(ops.clip(probs[..., 0], _CLIP, 1 - _CLIP))
    if loss == "exact":
        logits = unrounded(logits)
    return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)


def logit_gradients(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of each exact cross-entropy with respect to its logits.

    The gradient is g = p - onehot(y). Its entries other than y sum to 1 - p_y, and
    entry y is minus that sum. In float32, 1 - p_y is 0 from a gap of 17 between the
    label's logit and the others on, and each p underflows from 104 on. Here g is
    returned as a direction, whose entries never underflow together, and a logarithm.

    Args:
        logits: `(..., num_classes)` float32.
        y: `(...)` int labels.

    Returns:
        The direction g / (1 - p_y), `(..., num_classes)`: a softmax over the other
        classes, and -1 for y. And log(1 - p_y), `(...)`.
    """
    label = ops.one_hot(y, logits.shape[-1])
    others = ops.where(label > 0, -math.inf, ops.log_softmax(logits))
    return ops.softmax(others) - label, ops.logsumexp(others, axis=-1)


def unrounded(logits: Tensor) -> Tensor:
    """Return logits of the same softmax whose cross-entropy has an exact gradient.

    The gradient of a cross-entropy with respect to its logits is g = p - onehot(y),
    whose entries sum to 0. Where p_y rounds to 1, g_y rounds to 0. Behind a log-softmax
    the gradient becomes g - p sum(g): its entry y is minus the sum of the others again.

    Args:
        logits: `(..., num_classes)`.
    """
    return ops.log_softmax(logits, axis=-1)


def mean_log_probs(member_logits: Tensor) -> Tensor:
    """Return log(mean of the members' probabilities), `(n, k)`, without overflow.

    It is computed as logsumexp(log p_i) - log m.

    Args:
        member_logits: `(m, n, k)`.
    """
    log_probs = ops.log_softmax(member_logits, axis=-1)
    return ops.logsumexp(log_probs, axis=0) - ops.log(float(member_logits.shape[0]))
