"""The one package that knows TensorFlow from JAX: compile, differentiate, repeat."""

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Literal, TypeVar

import keras
from keras import ops

from advens.arrays import Tensor

State = TypeVar("State")
Value = TypeVar("Value")


def name() -> Literal["tensorflow", "jax"]:
    """Return the name of Keras's backend.

    Raises:
        NotImplementedError: if it is neither TensorFlow nor JAX.
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise NotImplementedError(
            f"The Keras backend must be 'tensorflow' or 'jax'. Received: {backend!r}"
        )
    return backend


def on_gpu() -> bool:
    """Return whether the backend computes on a GPU or another accelerator."""
    if name() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    import jax

    return jax.default_backend() != "cpu"


def use_xla() -> bool:
    """Return whether to compile with XLA: everywhere but with TensorFlow on a CPU.

    There, XLA makes training (docs/performance.md) and BIM slower.
    """
    return name() == "jax" or on_gpu()


def devices() -> list[str]:
    """Return the names of the devices that the backend computes on."""
    return keras.distribution.list_devices()


def uses_onednn() -> bool:
    """Return whether TensorFlow computes with oneDNN, see `process.use_onednn`."""
    # TensorFlow's own tests ask in this way; there is no public function.
    from tensorflow.python.framework import test_util

    return bool(test_util.IsMklEnabled())


def make_deterministic() -> None:
    """Make every run compute the same bits, on a GPU too.

    On a CPU no cost could be measured.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def limit_threads(count: int) -> None:
    """Let TensorFlow compute with `count` threads, if it has not started any yet."""
    if name() == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(count)
            tf.config.threading.set_inter_op_parallelism_threads(1)


def compile(function: Callable[..., Value], model: keras.Model) -> Callable[..., Value]:
    """Compile a function of tensors that calls `model`, once per input shape.

    The weights are read at every call: they may be assigned anew between two calls.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        # A new object for each function: TensorFlow takes all lambdas that stand in one
        # line for the same function, and would warn that it is traced too often.
        return tf.function(
            functools.partial(function), jit_compile=use_xla(), autograph=False
        )
    import jax

    @jax.jit
    def stateless(values: list[Tensor], *args: Tensor) -> Value:
        with keras.StatelessScope(zip(model.variables, values, strict=True)):
            return function(*args)

    return lambda *args: stateless([v.value for v in model.variables], *args)


def vjp(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return `function(x)`, and the vector-Jacobian product of `function` at `x`.

    The latter maps a tensor `v` of the shape of `function(x)` to the gradient of
    `sum(v * function(x))` with respect to `x`. It can be called once.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            x = tf.convert_to_tensor(x)
            tape.watch(x)
            value = function(x)
        return value, lambda v: tape.gradient(value, x, v, unconnected_gradients="zero")
    import jax

    value, product = jax.vjp(function, x)
    return value, lambda v: product(v)[0]


def input_gradient(losses: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient of the sum of `losses(x)`, `(n,)`, with respect to `x`."""
    values, product = vjp(losses, x)
    return product(ops.ones_like(values))


def repeat(num_steps: int, step: Callable[[State], State], state: State) -> State:
    """Return `state` after `num_steps` times `state = step(state)`.

    On a GPU this is a loop of the compiled program. On a CPU the steps are unrolled:
    TensorFlow does not fuse the operations of a loop, which costs BIM a quarter of its
    speed, and XLA compiles the convolutions of a loop into code 20 times slower.
    """
    if on_gpu():
        return ops.fori_loop(0, num_steps, lambda _, state: step(state), state)
    return trajectory(num_steps, step, state)[-1] if num_steps else state


def trajectory(
    num_steps: int, step: Callable[[State], State], state: State
) -> list[State]:
    """Return the state after each of `num_steps` times `state = step(state)`."""
    if name() == "tensorflow":
        import tensorflow as tf

        # Traced once for all steps.
        step = tf.function(functools.partial(step), autograph=False)
    states = []
    for _ in range(num_steps):
        state = step(state)
        states.append(state)
    return states


class ProgramCache:
    """Compiled functions. Where there is no room, the least recently used is dropped.

    Several threads may use it: at worst two compile the same function.

    Args:
        size: how many functions it keeps, >= 1.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._programs: OrderedDict[Hashable, Callable] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._programs)

    def get(self, key: Hashable, make: Callable[[], Callable]) -> Callable:
        """Return the function kept under `key`, or the one that `make` returns."""
        with self._lock:
            if key in self._programs:
                self._programs.move_to_end(key)
                return self._programs[key]
        program = make()
        with self._lock:
            self._programs[key] = program
            while len(self._programs) > self.size:
                self._programs.popitem(last=False)
        return program
