"""The input gradients of an ensemble, and the only module that knows how to get one.

Three different things, with three names:

- `member_gradient`, the paper's Grad. 1: of the loss of member i;
- `mean_member_gradient`, the paper's Grad. 2: the mean over the members;
- `ensemble_gradient`: of the loss of the ensemble itself, -log(mean probability).

Each returns a `Gradient`, a function of images and labels. For a single model, use an
ensemble of one, where the three coincide.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from advens.checks import check_choices, check_ensemble
from advens.ensemble import Compute, Ensemble
from advens.layers import quick_input_gradients

Labels = Literal["true", "predicted", "repredicted"]
Loss = Literal["exact", "logits", "clipped"]

# What Keras clipped probabilities at in 2017, and does today.
_CLIP = 1e-7


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The gradient, by the images, of a mean of cross-entropies.

    `gradient(x, y)` maps images `(n, h, w, c)` float32 and labels `(n,)` or `(k, n)`
    int to the gradient, `(n, h, w, c)` float32, of the loss summed over the batch: the
    gradient of an image does not depend on its neighbours.

    Attributes:
        logits: maps images to the logits, `(k, n, num_classes)`, of the `k` classifiers
            over whose cross-entropies the mean is taken.
        labels: which labels the loss has (docs/protocol.md, point 11). `"true"`: those
            given; `"predicted"`: what each classifier predicts for the images from
            which an attack starts, see `start_labels`; `"repredicted"`: what each
            classifier predicts at every call anew.
        loss: how the cross-entropy is computed (docs/protocol.md, point 12).
            `"exact"`: from logits, with a gradient that keeps the label's own term;
            `"logits"`: from logits by Keras. In float32 that gradient, softmax -
            onehot, loses the label's own term where 1 - p(y | x) < 6e-8, and so points
            elsewhere or nowhere: robustness by rounding; `"clipped"`: from
            probabilities clipped at 1e-7, as Keras did in 2017.
    """

    logits: Callable[[Any], Any]
    labels: Labels = "true"
    loss: Loss = "exact"

    def __post_init__(self) -> None:
        check_choices(self, labels=Labels, loss=Loss)

    def __call__(self, x: Any, y: Any) -> Any:
        """Return the gradient at `x`, see above.

        With `labels="predicted"` the labels are those given here, too: give it what
        `start_labels` returned where the attack began, as `attacks.craft` does.
        """
        x = ops.convert_to_tensor(x, "float32")
        return input_gradient(lambda x: self._losses(x, y), x)

    def start_labels(self, x: Any, y: Any) -> Any:
        """Return the labels with which an attack that starts at `x` calls this."""
        if self.labels == "predicted":
            return ops.argmax(self.logits(x), axis=-1)
        return y

    def _losses(self, x: Any, y: Any) -> Any:
        """Return the mean of the classifiers' cross-entropies, `(n,)`."""
        logits = self.logits(x)
        if self.labels == "repredicted":
            y = ops.argmax(logits, axis=-1)
        else:
            y = ops.convert_to_tensor(y)
            if tuple(y.shape) not in (tuple(logits.shape[1:-1]), logits.shape[:-1]):
                raise ValueError(
                    f"`y` must be of shape {tuple(logits.shape[1:-1])}, a label an "
                    f"image, or {tuple(logits.shape[:-1])}, a label a classifier and "
                    f"image. Received: shape {tuple(y.shape)}"
                )
            y = ops.broadcast_to(y, logits.shape[:-1])
        if self.loss == "clipped":
            probs = ops.take_along_axis(ops.softmax(logits), y[..., None], axis=-1)
            losses = -ops.log(ops.clip(probs[..., 0], _CLIP, 1 - _CLIP))
        else:
            logits = unrounded(logits) if self.loss == "exact" else logits
            losses = ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
        return ops.mean(losses, axis=0)


def member_gradient(
    ensemble: Ensemble,
    index: int,
    *,
    labels: Labels = "true",
    loss: Loss = "exact",
    compute: Compute = "float32",
) -> Gradient:
    """Grad. 1 (Section 3): the gradient of J(theta_i, x, y) of member `index`.

    Args:
        ensemble: of `m` members.
        index: which member, from 0 to m - 1.
        labels: see `Gradient`; predictions are those of member `index`.
        loss: see `Gradient`.
        compute: see `Ensemble.member_logits`; the loss is float32 always.
    """
    check_ensemble(ensemble)
    if not 0 <= index < len(ensemble):
        raise ValueError(
            f"`index` must be from 0 to {len(ensemble) - 1}. Received: index={index}"
        )
    return Gradient(
        lambda x: _member_logits(ensemble, x, index, compute=compute)[None],
        labels,
        loss,
    )


def mean_member_gradient(
    ensemble: Ensemble,
    *,
    labels: Labels = "true",
    loss: Loss = "exact",
    compute: Compute = "float32",
) -> Gradient:
    """Grad. 2 (Section 3): the mean of the members' gradients.

    Args:
        ensemble: of `m` members.
        labels: see `Gradient`; predictions are each member's own.
        loss: see `Gradient`.
        compute: see `Ensemble.member_logits`; the loss is float32 always.
    """
    check_ensemble(ensemble)
    return Gradient(
        lambda x: _member_logits(ensemble, x, compute=compute), labels, loss
    )


def ensemble_gradient(
    ensemble: Ensemble,
    *,
    labels: Labels = "true",
    loss: Loss = "exact",
    compute: Compute = "float32",
) -> Gradient:
    """The gradient of the ensemble's own loss, -log(mean over i of p_i(y | x)).

    It weighs member i's gradient with p_i / sum(p), and neither overflows nor clips. As
    its logits are logarithms of probabilities, `loss="logits"` is exact, too.

    Args:
        ensemble: of `m` members.
        labels: see `Gradient`; predictions are the ensemble's.
        loss: see `Gradient`.
        compute: see `Ensemble.member_logits`; the loss is float32 always.
    """
    check_ensemble(ensemble)
    return Gradient(
        lambda x: mean_log_probs(_member_logits(ensemble, x, compute=compute))[None],
        labels,
        loss,
    )


def _member_logits(ensemble: Ensemble, x: Any, *index: int, compute: Compute) -> Any:
    slow = not use_xla()  # TensorFlow on a CPU
    with quick_input_gradients(ensemble) if slow else contextlib.nullcontext():
        return ensemble.member_logits(x, *index, compute=compute)


def unrounded(logits: Any) -> Any:
    """Return logits of the same softmax, for a cross-entropy of an exact gradient.

    The gradient of a cross-entropy by its logits is g = p - onehot(y), whose sum is 0.
    Where p_y rounds to 1, g_y rounds to 0. Behind a log-softmax it becomes
    g - p sum(g), and so g_y the sum of the others again, negative.

    Args:
        logits: `(..., num_classes)`.
    """
    return ops.log_softmax(logits, axis=-1)


def mean_log_probs(member_logits: Any) -> Any:
    """Return log(mean over the members of their probabilities), `(n, k)`, stably.

    It is taken as logsumexp(log p_i) - log m.

    Args:
        member_logits: `(m, n, k)`.
    """
    log_probs = ops.log_softmax(member_logits, axis=-1)
    return ops.logsumexp(log_probs, axis=0) - ops.log(float(member_logits.shape[0]))


def on_gpu() -> bool:
    """Say whether the backend computes on a GPU or another accelerator."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    _require_jax()
    import jax

    return jax.default_backend() != "cpu"


def use_xla() -> bool:
    """Say whether to compile with XLA: not for TensorFlow on a CPU.

    There it makes training and BIM slower (docs/performance.md).
    """
    return keras.backend.backend() != "tensorflow" or on_gpu()


def compiled(function: Callable, model: keras.Model) -> Callable:
    """Compile a function of tensors that calls `model`, once per input shape.

    The weights are read at every call: they may be assigned anew between two calls.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # A partial: TensorFlow would take all lambdas of a line for one function, and
        # warn that it is traced too often.
        return tf.function(
            functools.partial(function), jit_compile=use_xla(), autograph=False
        )
    _require_jax()
    import jax

    @jax.jit
    def stateless(values: list[Any], *args: Any) -> Any:
        with keras.StatelessScope(zip(model.variables, values, strict=True)):
            return function(*args)

    return lambda *args: stateless([v.value for v in model.variables], *args)


def input_gradient(losses: Callable[[Any], Any], x: Any) -> Any:
    """Return the gradient by the images `x` of the sum of `losses(x)`, `(n,)`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            x = tf.convert_to_tensor(x)
            tape.watch(x)
            loss = tf.reduce_sum(losses(x))
        return tape.gradient(loss, x, unconnected_gradients="zero")
    _require_jax()
    import jax

    return jax.grad(lambda x: ops.sum(losses(x)))(x)


def repeat(start: int, stop: int, body: Callable[[Any, Any], Any], state: Any) -> Any:
    """Return `state` after `state = body(i, state)` for each i from start to stop - 1.

    It is a loop of the compiled program on a GPU. On a CPU the steps stand one after
    another: TensorFlow does not fuse the operations of a loop, which costs BIM a
    quarter, and XLA compiles the convolutions of a loop into code 20 times slower.
    """
    if on_gpu():
        return ops.fori_loop(start, stop, body, state)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Traced once.
        body = tf.function(functools.partial(body), autograph=False)
    for i in range(start, stop):
        state = body(ops.convert_to_tensor(i), state)
    return state


def _require_jax() -> None:
    if (backend := keras.backend.backend()) != "jax":
        raise NotImplementedError(
            f"The Keras backend must be 'tensorflow' or 'jax'. Received: {backend!r}"
        )
