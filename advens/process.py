"""Settings of the process that computes: its kernels, memory, randomness, threads.

They hold until the process ends, so the library makes none of them in its caller's. The
scripts make the first two, worker processes all but the first, which they inherit.
"""

import contextlib
import ctypes
import os
import sys
from typing import Final

# Of glibc's malloc.h, see its mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_MAX: Final = -4
_M_ARENA_MAX: Final = -8


def use_onednn() -> bool:
    """Let TensorFlow compute by oneDNN on a CPU, and processes that are started later.

    It does so by itself on newer processors alone. On one without AVX-512, attacks are
    1.4 to 1.8 times as fast as by TensorFlow's own kernels (docs/performance.md), which
    `TF_ENABLE_ONEDNN_OPTS=0` in the environment keeps.

    Returns:
        Whether it is in time: TensorFlow looks when it is imported.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    return "tensorflow" not in sys.modules


def keep_memory() -> bool:
    """Let the C library keep freed memory for what comes next.

    TensorFlow on a CPU frees each tensor after its last use. As glibc is by default,
    the memory goes back to the system, and handing out its pages again can take a third
    of a training's time. Keeping it costs .05 to .25 GiB (docs/performance.md).

    Returns:
        Whether it does so from now on: only on Linux with glibc, and not on Keras's JAX
        backend, where it gains little and costs .6 GiB.
    """
    if sys.platform != "linux" or not _on_tensorflow():
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
    if _on_tensorflow():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def use_threads(count: int) -> None:
    """Let TensorFlow compute with so many threads, if it has not computed yet.

    Args:
        count: of threads.
    """
    if _on_tensorflow():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(count)
            tf.config.threading.set_inter_op_parallelism_threads(1)


def _on_tensorflow() -> bool:
    import keras

    return keras.backend.backend() == "tensorflow"
