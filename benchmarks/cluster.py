"""What a Dask cluster costs: one worker beside no cluster, empty units, bytes sent.

Table 2's row Rand. Ini. of the digits is trained and attacked from nothing, on one core
each, by the command as a user calls it: with a cluster of one worker, which has started
before, and without one. Then units of work that do nothing are sent, and an array.
"""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from absl import flags

import common

_SCRIPT: Final = Path(__file__).parents[1] / "reproduce" / "table2.py"
_UNITS = flags.DEFINE_integer("units", 10_000, "Units of work that do nothing.", 1)
_MEGABYTES = flags.DEFINE_integer("megabytes", 200, "Size of the array.", 1)
_MEMBERS = flags.DEFINE_integer("num_members", 3, "Members of the row.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs of their training.", 1)


def main() -> None:
    """Start a cluster of one worker on this machine, and measure it."""
    # All processes have the same core, so both ways have as much to compute with.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with _one_worker() as (address, directory):
        seconds = common.in_turns(
            {
                "no cluster": functools.partial(_table, directory),
                "one worker": functools.partial(_table, directory, address),
            }
        )
        units, sent = _constants(address, directory)
    ratios = seconds["one worker"] / seconds["no cluster"]
    common.publish(
        "One worker on the core of its client",
        ["", "lowest", "median", "highest"],
        [
            *([f"{name} (s)", *common.spread(s)] for name, s in seconds.items()),
            ["one worker over no cluster", *common.spread(ratios, 3)],
            [f"{_UNITS.value:,} empty units (s)", *common.spread([units])],
            ["sent to the worker (MB/s)", *common.spread([sent], 0)],
        ],
        seconds=seconds,
        ratios=ratios,
        seconds_of_empty_units={str(_UNITS.value): units},
        megabytes_per_second=sent,
    )


@contextlib.contextmanager
def _one_worker() -> Iterator[tuple[str, Path]]:
    """Yield the scheduler file of a cluster, and its directory."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        file = directory / "scheduler.json"
        parts = {"scheduler": ["--port=0"], "worker": ["--nthreads=1", "--no-nanny"]}
        for part, arguments in parts.items():
            command = [
                *(sys.executable, "-m", f"distributed.cli.dask_{part}", *arguments),
                *(f"--scheduler-file={file}", "--no-dashboard"),
            ]
            process = subprocess.Popen(
                command, cwd=name, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        while not file.exists():
            time.sleep(0.1)
        yield str(file), directory


def _table(directory: Path, address: str | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as run:
        command = [
            *(sys.executable, _SCRIPT, "--methods=rand_ini"),
            *(f"--num_members={_MEMBERS.value}", f"--epochs={_EPOCHS.value}"),
        ]
        if address:
            command.append(f"--cluster={address}")
        subprocess.run(command, cwd=run, check=True, capture_output=True)


def _constants(address: str, directory: Path) -> tuple[float, float]:
    """Return the seconds of the empty units, and how many MB are sent in a second."""
    from advens.cluster.connection import Connection, Task

    connection = Connection(address, directory)
    try:
        start = time.perf_counter()
        tasks = [
            Task("nothing", functools.partial(len, ())) for _ in range(_UNITS.value)
        ]
        assert sum(1 for _ in connection.run(tasks)) == _UNITS.value
        units = time.perf_counter() - start
        array = np.ones(_MEGABYTES.value * 10**6, np.uint8)
        start = time.perf_counter()
        [(_, length)] = connection.run([Task("an array", len)], array)
        assert length == len(array)
        return units, _MEGABYTES.value / (time.perf_counter() - start)
    finally:
        connection.close()


if __name__ == "__main__":
    common.run(main)
