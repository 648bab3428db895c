"""The losses whose gradients attacks follow, and their exact gradients."""

import math

from keras import ops

from advens.arrays import Tensor

# Where Keras clips probabilities, in 2017 as today.
_CLIP = 1e-7
# e^-60 is 1e-26. Float32 ends at 1e-38: that leaves room for an image's smaller pixels.
_SMALLEST_LOG_SIZE = -60.0


def cross_entropies(logits: Tensor, y: Tensor, *, clipped: bool = False) -> Tensor:
    """Return the cross-entropy of each image as Keras computes it.

    Args:
        logits: `(..., num_classes)` float32.
        y: `(...)` int labels.
        clipped: whether from probabilities, clipped at 1e-7.

    Returns:
        `(...)` float32.
    """
    if clipped:
        probs = ops.take_along_axis(ops.softmax(logits), y[..., None], axis=-1)
        return -ops.log(ops.clip(probs[..., 0], _CLIP, 1 - _CLIP))
    return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)


def mean_log_probs(member_logits: Tensor) -> Tensor:
    """Return log(mean of the members' probabilities), `(n, k)`, without overflow.

    It is computed as logsumexp(log p_i) - log m.

    Args:
        member_logits: `(m, n, k)`.
    """
    log_probs = ops.log_softmax(member_logits, axis=-1)
    return ops.logsumexp(log_probs, axis=0) - ops.log(float(member_logits.shape[0]))


def logit_gradients(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact gradients of cross-entropies with respect to their logits.

    The gradient is g = p - onehot(y). Its entries other than y sum to 1 - p_y, and
    entry y is minus that sum. In float32, p_y rounds to 1 if its logit leads by 17, and
    each other p underflows if it leads by 104. A direction and a logarithm do neither.

    Args:
        logits: `(..., num_classes)` float32.
        y: `(...)` int labels. One that is no class makes its gradient NaN.

    Returns:
        The directions g / (1 - p_y), `(..., num_classes)`: a softmax over the other
        classes, and -1 for y. And log(1 - p_y), `(...)`.
    """
    label = ops.one_hot(y, logits.shape[-1])
    label = label / ops.sum(label, axis=-1, keepdims=True)  # 0 / 0 for no class
    others = ops.where(label > 0, -math.inf, logits)
    log_probs = ops.where(label > 0, -math.inf, ops.log_softmax(logits))
    return ops.softmax(others) - label, ops.logsumexp(log_probs, axis=-1)


def weighted_sum(grads: Tensor, log_weights: Tensor) -> Tensor:
    """Return the sum over `m` of weights times gradients, scaled up if it underflows.

    An image whose largest summand is below e^-60 in all pixels gets all its weights
    multiplied by the factor that makes it e^-60.

    Args:
        grads: `(m, n, h, w, c)` float32.
        log_weights: `(m, n)`, the logarithms of the weights.
    """
    features = tuple(range(2, grads.ndim))
    sizes = ops.max(ops.abs(grads), axis=features)
    log_size = ops.max(log_weights + ops.log(sizes), axis=0)
    log_weights = log_weights + ops.relu(_SMALLEST_LOG_SIZE - log_size)
    # A gradient that is zero may have an infinite weight now.
    weights = ops.where(sizes > 0, ops.exp(log_weights), 0.0)
    return ops.sum(ops.expand_dims(weights, features) * grads, axis=0)
