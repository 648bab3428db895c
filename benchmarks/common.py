"""What the benchmarks share: cores, timing in turns, a table on the terminal, a record.

The machine may be busy with other work. A speed is therefore told as the ratio of two
measurements that follow each other. Of many such pairs, the median is shown, with the
lowest and the highest.
"""

import functools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Final, TypeAlias

import numpy as np
from absl import app, flags

from advens.arrays import Floats

# What is measured. A call must wait for its own result, as a library may return before
# it has computed anything. It may return a `timedelta` that says how long it took.
Call: TypeAlias = Callable[[], object]

FLAGS: Final = flags.FLAGS
# A short call is repeated for this long. PyTorch's threads keep a core busy for a while
# after a call, which would slow down a short call of another library by a fifth.
_MIN_SECONDS: Final = 0.3

flags.DEFINE_integer("cores", 0, "How many cores to use; 0 for all.", 0)
flags.DEFINE_integer("rounds", 5, "How often each contender is measured.", 1)
flags.DEFINE_string("out", None, "JSON file for the record.")


def run(main: Callable[[], None]) -> None:
    """Run a benchmark on `--cores` cores, with the settings that the scripts make.

    TensorFlow, JAX, PyTorch and BLAS start one thread per available core when they are
    imported: import them within `main`.
    """

    def start(_: list[str]) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        if FLAGS.cores:
            cores = sorted(os.sched_getaffinity(0))
            if FLAGS.cores > len(cores):
                raise app.UsageError(
                    f"`cores` must be at most {len(cores)}. Received: {FLAGS.cores}"
                )
            os.sched_setaffinity(0, cores[: FLAGS.cores])
        # By default each process would take most of a GPU's memory for itself.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from advens import process

        process.use_onednn()
        process.keep_memory()
        main()

    app.run(start)


def in_own_process(
    make: Callable[..., Call], *args: Hashable, tuned: bool = False
) -> Call:
    """Return a call that is made, and then called, in a process of its own.

    No other library's threads and settings can disturb it there.

    Args:
        make: makes the call; a function of a module.
        args: the arguments of `make`.
        tuned: whether the process gets the settings that the scripts make, see
            `advens.process`.
    """
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, spawn, initializer=_prepare, initargs=(tuned,))
    return lambda: pool.submit(_call, make, *args).result()


def _prepare(tuned: bool) -> None:
    if tuned:
        from advens import process

        process.keep_memory()
    else:
        # The parent process has set it in `run`, and this one has inherited it.
        del os.environ["TF_ENABLE_ONEDNN_OPTS"]


def _call(make: Callable[..., Call], *args: Hashable) -> object:
    return _made(make, *args)()


@functools.cache
def _made(make: Callable[..., Call], *args: Hashable) -> Call:
    return make(*args)


def in_turns(calls: Mapping[str, Call]) -> dict[str, Floats]:
    """Time each call once per round, after a first call that does not count.

    A call that takes less than 0.3 seconds is repeated within its turn. Every second
    round runs in reverse order, so that no call always follows the same other one.

    Returns:
        For each call the seconds that it took, `(rounds,)`.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(FLAGS.rounds):
        turns = list(calls.items())
        if i % 2:
            turns.reverse()
        for name, call in turns:
            durations: list[float] = []
            while sum(durations) < _MIN_SECONDS:
                start = time.perf_counter()
                result = call()
                duration = time.perf_counter() - start
                if isinstance(result, timedelta):
                    duration = result.total_seconds()
                durations.append(duration)
            seconds[name].append(float(np.mean(durations)))
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values: Sequence[float] | Floats, digits: int = 2) -> list[str]:
    """Return the lowest, the median and the highest value, as text."""
    return [f"{np.quantile(values, q):,.{digits}f}" for q in (0, 0.5, 1)]


def publish(
    title: str,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    **record: object,
) -> None:
    """Print a table; with `--out`, also write a manifest followed by `record`."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left")
    for line in lines:
        table.add_row(*line)
    Console(width=max(120, Console().width)).print(table)
    write(**record)


def write(**record: object) -> None:
    """With `--out`, write a manifest followed by `record`."""
    from advens import backend
    from advens.storage.files import atomic
    from advens.strauss2017.reporting.manifest import manifest

    if FLAGS.out:
        entries = manifest(backend=backend.name(), devices=backend.devices(), **record)
        text = json.dumps(entries, indent=2, default=np.ndarray.tolist)
        with atomic(FLAGS.out) as handle:
            handle.write(f"{text}\n".encode())
