"""Settings of the process that computes: its memory, its randomness, its threads.

They hold until the process ends, so the library makes none of them in its caller's:
worker processes make them all, and the scripts keep memory.
"""

import contextlib
import ctypes
import sys
from typing import Final

import keras

# Of glibc's malloc.h, see its mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_MAX: Final = -4
_M_ARENA_MAX: Final = -8


def keep_memory() -> bool:
    """Let the C library keep freed memory for what comes next.

    TensorFlow on a CPU frees each tensor after its last use. As glibc is by default,
    the memory goes back to the system, and handing out its pages again can take a third
    of a training's time. Keeping it costs .05 to .25 GiB (docs/performance.md).

    Returns:
        Whether it does so from now on: only on Linux with glibc, and not on Keras's JAX
        backend, where it gains little and costs .6 GiB.
    """
    if sys.platform != "linux" or keras.backend.backend() != "tensorflow":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
    return all([mallopt(option, value) for option, value in options.items()])


def be_deterministic() -> None:
    """Compute the same bits at every run, on a GPU too.

    On a CPU it costs nothing that could be measured.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def use_threads(count: int) -> None:
    """Let TensorFlow compute with so many threads, if it has not computed yet.

    Args:
        count: of threads.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(count)
            tf.config.threading.set_inter_op_parallelism_threads(1)
