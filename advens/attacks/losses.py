"""The losses whose gradients attacks follow."""

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
