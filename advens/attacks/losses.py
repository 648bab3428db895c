"""The losses whose gradients attacks follow, and their exact gradients."""

import math

from keras import ops

from advens.arrays import Tensor
from advens.models.votes import mean_log_probs

# Where Keras clips probabilities, in 2017 as today.
_CLIP = 1e-7
# e^-60 is 1e-26. Float32 ends at 1e-38: that leaves room for an image's smaller pixels.
_SMALLEST_LOG_SIZE = -60.0
# Keeps 0 / 0 from being NaN.
_SMALL = 1e-12


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
        probs = _of(ops.softmax(logits), y)
        return -ops.log(ops.clip(probs, _CLIP, 1 - _CLIP))
    return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)


def exact_cross_entropies(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each image, exact where it is tiny, too.

    It is log(1 + sum of e^(z_j - z_y) over the other classes j): 1e-20 and 1e-30 are
    still different, where Keras's is 0.

    Args:
        logits: `(..., num_classes)` float32.
        y: `(...)` int labels.

    Returns:
        `(...)` float32.
    """
    return ops.softplus(ops.logsumexp(_others(logits, y), axis=-1) - _of(logits, y))


def dlr(logits: Tensor, y: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the difference of logits ratio of each image.

    With the logits sorted, z_1 >= z_2 >= ..., it is (max of the others - z_y) /
    (z_1 - z_3), and towards a target class t it is (z_t - z_y) / (z_1 - (z_3 + z_4) /
    2). It does not change with the scale of the logits. With fewer classes than these
    formulas need, the difference is not divided.

    Source: Croce & Hein 2020, arXiv:2003.01690, equations 6 and 7.

    Args:
        logits: `(..., num_classes)` float32.
        y: `(...)` int labels.
        targets: `(...)` int classes, for the targeted form.

    Returns:
        `(...)` float32.
    """
    if targets is None:
        lead, num_sorted = ops.max(_others(logits, y), axis=-1), 3
    else:
        lead, num_sorted = _of(logits, targets), 4
    difference = lead - _of(logits, y)
    if logits.shape[-1] < num_sorted:
        return difference
    ordered, _ = ops.top_k(logits, num_sorted)
    low = ops.mean(ordered[..., 2:], axis=-1)
    return difference / (ordered[..., 0] - low + _SMALL)


def soft_vote(logits: Tensor) -> Tensor:
    """Return the logarithms of a vote that every member can still sway, `(n, k)`.

    Each member's logits are divided by their standard deviation over the classes; its
    softmax is its vote. A member that is far from changing its answer, on either side,
    sways the result little: what counts are those that are about to. However certain
    the members are, and however their scales differ, no gradient vanishes.

    It takes up the idea of Yu, Gao & Xu 2022 (MORA, arXiv:2211.08008) to weigh the
    members at each step by how much they matter for the vote.

    Args:
        logits: `(m, n, k)` float32.
    """
    scales = ops.stop_gradient(ops.std(logits, axis=-1, keepdims=True))
    return mean_log_probs(logits / (scales + _SMALL))


def _of(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit of class y."""
    return ops.take_along_axis(logits, y[..., None], axis=-1)[..., 0]


def _others(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logits with that of class y at minus infinity."""
    label = ops.one_hot(y, logits.shape[-1])
    return ops.where(label > 0, -math.inf, logits)


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
    others = _others(logits, y)
    log_probs = ops.where(label > 0, -math.inf, ops.log_softmax(logits))
    return ops.softmax(others) - label, ops.logsumexp(log_probs, axis=-1)


def normalized(grads: Tensor) -> Tensor:
    """Return gradients, `(m, n, h, w, c)`, divided by their L1 norms per image."""
    axes = tuple(range(2, grads.ndim))
    largest = ops.max(ops.abs(grads), axis=axes, keepdims=True)
    grads = grads / ops.where(largest > 0, largest, 1.0)
    norms = ops.sum(ops.abs(grads), axis=axes, keepdims=True)
    return grads / ops.where(norms > 0, norms, 1.0)


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
