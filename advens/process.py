"""Settings of the process that make TensorFlow faster on a CPU.

They last until the process ends, so the library never changes them in its caller's
process. The scripts and the worker processes of a training do.
"""

import ctypes
import os
import sys
from typing import Final

# From glibc's malloc.h, see mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_MAX: Final = -4
_M_ARENA_MAX: Final = -8


def use_onednn() -> bool:
    """Let TensorFlow use oneDNN on a CPU, in this process and in those it starts.

    By default TensorFlow does so only on newer processors. Without AVX-512, attacks are
    1.4 to 1.8 times as fast with oneDNN as with TensorFlow's own kernels
    (docs/performance.md). A user can keep those by `TF_ENABLE_ONEDNN_OPTS=0` in the
    environment.

    Returns:
        Whether this call comes in time for this process, which is before TensorFlow is
        imported.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    return "tensorflow" not in sys.modules


def keep_memory() -> bool:
    """Let the C library keep freed memory instead of returning it to the system.

    TensorFlow on a CPU frees each tensor after its last use. By default glibc returns
    that memory to the system, and getting its pages back can take a third of the time
    of a training. Keeping it costs .05 to .25 GiB (docs/performance.md).

    Returns:
        Whether the C library does so from now on. It does only on Linux with glibc, and
        not for Keras's JAX backend, where it gains little and costs .6 GiB.
    """
    import keras

    if sys.platform != "linux" or keras.backend.backend() != "tensorflow":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
    return all([mallopt(option, value) for option, value in options.items()])
