"""The input gradients of an ensemble, and the only module that knows how to get one.

Three different things, with three names:

- `member_gradient`, the paper's Grad. 1: of the loss of member i;
- `mean_member_gradient`, the paper's Grad. 2: the mean over the members;
- `ensemble_gradient`: of the loss of the ensemble itself, -log(mean probability).

Each returns a function `gradient(x, y)` of images `(n, h, w, c)` float32 and labels
`(n,)` int that gives the gradient, `(n, h, w, c)` float32, of the loss summed over the
batch: the gradient of an image does not depend on its neighbours. For a single model,
use an ensemble of one, where the three coincide.
"""

from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from advens.ensemble import Ensemble

Gradient = Callable[[Any, Any], Any]
Labels = Literal["true", "predicted", "repredicted"]
Loss = Literal["logits", "clipped"]

# What Keras clipped probabilities at in 2017, and does today.
_CLIP = 1e-7


def member_gradient(
    ensemble: Ensemble, index: int, *, labels: Labels = "true", loss: Loss = "logits"
) -> Gradient:
    """Grad. 1 (Section 3): the gradient of J(theta_i, x, y) of member `index`.

    Args:
        ensemble: of `m` members.
        index: which member, from 0 to m - 1.
        labels: `"true"`, or `"predicted"` if `y` holds predictions: take `y` as it is;
            `"repredicted"`: put the member's label at `x` in its place, at every call
            (docs/protocol.md, point 11).
        loss: `"logits"`: cross-entropy from logits; `"clipped"`: from probabilities
            clipped at 1e-7, as Keras computed it in 2017 (docs/protocol.md, point 12).
    """
    _check(labels, loss)
    if not 0 <= index < len(ensemble):
        raise ValueError(
            f"`index` must be from 0 to {len(ensemble) - 1}. Received: index={index}"
        )

    def losses(x: Any, y: Any) -> Any:
        return _member_loss(ensemble.member_logits(x, index), y, labels, loss)

    return lambda x, y: _input_gradient(losses, x, y)


def mean_member_gradient(
    ensemble: Ensemble, *, labels: Labels = "true", loss: Loss = "logits"
) -> Gradient:
    """Grad. 2 (Section 3): the mean of the members' gradients.

    Args:
        ensemble: of `m` members.
        labels: as for `member_gradient`; `"repredicted"` is each member's own label.
            `y` may also be `(m, n)`, a row of labels a member.
        loss: as for `member_gradient`.
    """
    _check(labels, loss)

    def losses(x: Any, y: Any) -> Any:
        members = range(len(ensemble))
        y = ops.broadcast_to(y, (len(ensemble), ops.shape(x)[0]))
        terms = [
            _member_loss(ensemble.member_logits(x, i), y[i], labels, loss)
            for i in members
        ]
        return sum(terms) / len(ensemble)

    return lambda x, y: _input_gradient(losses, x, y)


def ensemble_gradient(
    ensemble: Ensemble, *, labels: Labels = "true", loss: Loss = "logits"
) -> Gradient:
    """The gradient of the ensemble's own loss, -log(mean over i of p_i(y | x)).

    The logarithm of the mean is taken as logsumexp(log p_i) - log m, without overflow
    and without clipping. It weighs member i's gradient with p_i / sum(p).

    Args:
        ensemble: of `m` members.
        labels: as for `member_gradient`; `"repredicted"` is the ensemble's label.
        loss: as for `member_gradient`.
    """
    _check(labels, loss)

    def losses(x: Any, y: Any) -> Any:
        log_probs = mean_log_probs(ensemble.member_logits(x))
        return _member_loss(log_probs, y, labels, loss)

    return lambda x, y: _input_gradient(losses, x, y)


def mean_log_probs(member_logits: Any) -> Any:
    """Return log(mean over the members of their probabilities), `(n, k)`, stably.

    Args:
        member_logits: `(m, n, k)`.
    """
    log_probs = ops.log_softmax(member_logits, axis=-1)
    return ops.logsumexp(log_probs, axis=0) - ops.log(float(len(member_logits)))


def compiled(function: Callable, ensemble: Ensemble) -> Callable:
    """Compile a function of tensors that calls `ensemble`, once per input shape.

    The weights are read at every call: they may be assigned anew between two calls.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # XLA made BIM 1.7 to 15 times slower on a CPU.
        on_gpu = bool(tf.config.list_physical_devices("GPU"))
        return tf.function(function, jit_compile=on_gpu)
    raise NotImplementedError(
        f"The Keras backend must be 'tensorflow'. Received: {backend!r}"
    )


def _check(labels: str, loss: str) -> None:
    if labels not in ("true", "predicted", "repredicted"):
        raise ValueError(
            "`labels` must be 'true', 'predicted' or 'repredicted'. "
            f"Received: labels={labels!r}"
        )
    if loss not in ("logits", "clipped"):
        raise ValueError(
            f"`loss` must be 'logits' or 'clipped'. Received: loss={loss!r}"
        )


def _member_loss(logits: Any, y: Any, labels: Labels, loss: Loss) -> Any:
    """Return the cross-entropy, `(n,)`, of `(n, k)` logits and `(n,)` labels."""
    if labels == "repredicted":
        y = ops.argmax(logits, axis=-1)
    if loss == "clipped":
        probs = ops.take_along_axis(ops.softmax(logits), y[:, None], axis=-1)[:, 0]
        return -ops.log(ops.clip(probs, _CLIP, 1 - _CLIP))
    return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)


def _input_gradient(losses: Callable, x: Any, y: Any) -> Any:
    """Return the gradient by `x` of the sum of `losses(x, y)`."""
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        x = tf.convert_to_tensor(x)
        tape.watch(x)
        loss = tf.reduce_sum(losses(x, tf.convert_to_tensor(y)))
    return tape.gradient(loss, x, unconnected_gradients="zero")
