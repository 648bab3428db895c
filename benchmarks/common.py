"""What the benchmarks share: cores, turns, ratios, a table and a record.

This machine may be shared: a speed is told as the ratio of two measurements that follow
each other, and of many such pairs the median, with the lowest and the highest.
"""

import functools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from absl import app, flags

FLAGS: Final = flags.FLAGS
# Seconds that a measurement takes at least: PyTorch's threads wait busily for a while
# after a call, which would cost the next one a fifth if it is short.
_LEAST_SECONDS: Final = 0.3

flags.DEFINE_integer("cores", 0, "Cores that may be used; 0 for all.", 0)
flags.DEFINE_integer("rounds", 5, "Measurements of each kind, in turns.", 1)
flags.DEFINE_string("out", None, "JSON file to write.")


def run(main: Callable[[], None]) -> None:
    """Run a benchmark on the cores that `--cores` leaves to it, set as the scripts are.

    TensorFlow, JAX, PyTorch and BLAS all start as many threads as they may use cores:
    import them within `main`.
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
        # Each measured process would take most of a GPU's memory for itself.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from advens import process

        process.use_onednn()
        process.keep_memory()
        main()

    app.run(start)


def alone(
    make: Callable[..., Callable[[], Any]], *args: Any, tuned: bool = False
) -> Callable[[], Any]:
    """Return a call that is made and called in a process of its own.

    So no other library's threads and settings are beside it.

    Args:
        make: makes it; a function of a module.
        args: of `make`, hashable.
        tuned: whether the process is set as the scripts are, see `process`.
    """
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, spawn, initializer=_prepare, initargs=(tuned,))
    return lambda: pool.submit(_call, make, *args).result()


def _prepare(tuned: bool) -> None:
    # Of `run`, in the process that started this one.
    if not tuned:
        del os.environ["TF_ENABLE_ONEDNN_OPTS"]
        return
    from advens import process

    process.keep_memory()


def _call(make: Callable[..., Any], *args: Any) -> Any:
    return _made(make, *args)()


@functools.cache
def _made(make: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return make(*args)


def in_turns(calls: Mapping[str, Callable[[], Any]]) -> dict[str, np.ndarray]:
    """Time each call once a round, a short one several times, after one not counted.

    Every second round goes backwards: no call always follows the same other. A call
    must wait for its result: a library may return before it has computed. One that
    returns a `timedelta` says itself how long it took.

    Returns:
        Seconds a call, `(rounds,)`, of each.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(FLAGS.rounds):
        for name, call in list(calls.items())[:: -1 if i % 2 else 1]:
            took: list[float] = []
            while sum(took) < _LEAST_SECONDS:
                start = time.perf_counter()
                result = call()
                whole = time.perf_counter() - start
                told = isinstance(result, timedelta)
                took.append(result.total_seconds() if told else whole)
            seconds[name].append(float(np.mean(took)))
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values: Sequence[float] | np.ndarray, digits: int = 2) -> list[str]:
    """Return the lowest, the median and the highest value, as text."""
    return [f"{np.quantile(values, q):,.{digits}f}" for q in (0, 0.5, 1)]


def publish(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], **record: Any
) -> None:
    """Print a table, and write `record` behind the manifest if `--out` asks for it."""
    from rich.console import Console
    from rich.table import Table

    from advens.files import atomic
    from advens.manifest import manifest

    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=max(120, Console().width)).print(table)
    if FLAGS.out:
        with atomic(Path(FLAGS.out)) as handle:
            text = json.dumps(manifest(**record), indent=2, default=np.ndarray.tolist)
            handle.write(f"{text}\n".encode())
