"""The one package that knows TensorFlow from JAX: compile, differentiate."""

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Literal, TypeVar

import keras
from keras import ops

from advens.arrays import Tensor
from advens.backend.program_cache import ProgramCache

Value = TypeVar("Value")

# How many input shapes of a function have programs at a time.
_KEPT_SHAPES: Final = 8


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


def use_full_float32() -> None:
    """Compute float32 in float32 on a GPU, too.

    Left alone, both backends round the factors of products and convolutions to the ten
    bits of TF32 on NVIDIA's newer GPUs. It changes nothing on a CPU.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    else:
        import jax

        jax.config.update("jax_default_matmul_precision", "float32")


def keep_tensorflow_off_gpus() -> None:
    """Leave the memory of GPUs to JAX where data are read through TensorFlow."""
    if name() == "jax":
        import tensorflow as tf

        # It is too late if TensorFlow has started.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")


def limit_threads(count: int) -> None:
    """Let TensorFlow compute with `count` threads, if it has not started any yet."""
    if name() == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(count)
            tf.config.threading.set_inter_op_parallelism_threads(1)


def compile(
    function: Callable[..., Value], model: keras.Model | None = None
) -> Callable[..., Value]:
    """Compile a function of tensors that calls `model`, once per input shape.

    The weights are read at every call: they may be assigned anew between two calls. The
    state of the model's random layers moves on with every call. The programs of eight
    shapes are kept. Any number of threads may call the function.

    Args:
        function: takes tensors, lists of tensors, or Python values that are constants
            of the program.
        model: the model whose variables it uses; None if it computes from its arguments
            alone.
    """
    make = _tensorflow_program if name() == "tensorflow" else _jax_program
    programs = ProgramCache(_KEPT_SHAPES)

    def call(*args: Tensor) -> Value:
        key = tuple(_signature(arg) for arg in keras.tree.flatten(args))
        return programs.get(key, lambda: _TracedAlone(make(function, model)))(*args)

    return call


def compile_for_any(
    function: Callable[..., Value], variables: Sequence[keras.Variable]
) -> Callable[..., Value]:
    """Compile a function of tensors so that it can compute from other weights.

    Args:
        function: as for `compile`; it uses no state but the values of `variables`.
        variables: the weights of its model.

    Returns:
        A function that takes first the weights of a model of the same architecture,
        then what `function` takes.
    """

    def from_values(values: list[Tensor], *args: Tensor) -> Value:
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return function(*args)

    program = compile(from_values)

    def call(others: Sequence[keras.Variable], *args: Tensor) -> Value:
        return program([_value(variable) for variable in others], *args)

    return call


def _value(variable: keras.Variable) -> Tensor:
    if name() == "jax":
        return variable.value
    import tensorflow as tf

    return tf.convert_to_tensor(variable.value)


def _signature(arg: Tensor) -> Hashable:
    return (tuple(arg.shape), str(arg.dtype)) if hasattr(arg, "shape") else arg


class _TracedAlone:
    """A program that is traced, in its first call, while no other one is.

    Keras does not promise that two threads may trace the same layers.
    """

    _tracing = threading.RLock()

    def __init__(self, program: Callable) -> None:
        self._program = program
        self._is_traced = False

    def __call__(self, *args: Tensor) -> Any:
        if self._is_traced:
            return self._program(*args)
        with self._tracing:
            result = self._program(*args)
        self._is_traced = True
        return result


def _tensorflow_program(function: Callable, model: keras.Model | None) -> Callable:
    import tensorflow as tf

    # A new object for each function: TensorFlow takes all lambdas that stand in one
    # line for the same function, and would warn that it is traced too often.
    return tf.function(
        functools.partial(function), jit_compile=use_xla(), autograph=False
    )


def _jax_program(function: Callable, model: keras.Model | None) -> Callable:
    import jax

    if model is None:
        # A new object, too: JAX keeps what it traced as long as the function is there.
        return jax.jit(functools.partial(function))

    @jax.jit
    def stateless(
        values: list[Tensor], *args: Tensor
    ) -> tuple[Tensor, dict[int, Tensor]]:
        variables = model.variables
        scope = keras.StatelessScope(zip(variables, values, strict=True))
        before = [scope.get_current_value(variable) for variable in variables]
        with scope:
            result = function(*args)
        if len(scope.state_mapping) > len(variables):
            raise ValueError(
                "A compiled function may only assign to variables of its model. "
                "Received: one that is none of them, such as the state of a "
                "SeedGenerator that is no attribute of a layer"
            )
        after = [scope.get_current_value(variable) for variable in variables]
        changed = {i: new for i, new in enumerate(after) if new is not before[i]}
        return result, changed

    def call(*args: Tensor) -> Any:
        variables = model.variables
        result, changed = stateless([v.value for v in variables], *args)
        # The states of seed generators: the next call draws other numbers.
        for i, value in changed.items():
            variables[i].assign(value)
        return result

    return call


def is_known(x: Tensor) -> bool:
    """Return whether a tensor has a value: it is none of a program that is traced."""
    if name() == "tensorflow":
        import tensorflow as tf

        return not tf.is_symbolic_tensor(x)
    import jax

    return not isinstance(x, jax.core.Tracer)


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


def vjps(
    functions: Sequence[Callable[[Tensor], Tensor]], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the values of `m` functions at `x`, and their vector-Jacobian products.

    Returns:
        The values, stacked, `(m, ...)`, and a function that maps a tensor of that shape
        to the functions' own products, `(m, *x.shape)`. It can be called once.
    """
    values, products = zip(*(vjp(function, x) for function in functions), strict=True)

    def product(v: Tensor) -> Tensor:
        pairs = zip(products, ops.unstack(v, len(products)), strict=True)
        return ops.stack([of_one(part) for of_one, part in pairs])

    return ops.stack(values), product


def input_gradient(losses: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient of the sum of `losses(x)`, `(n,)`, with respect to `x`."""
    values, product = vjp(losses, x)
    return product(ops.ones_like(values))
