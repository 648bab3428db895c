"""Table 2 and an audit on a cluster whose processes are killed on the way."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from distributed import Client

from advens.cluster.connection import Connection, Task
from advens.pretrained import load_pretrained
from tests.cluster.processes import ENVIRONMENT, wait_until

SCRIPT = Path(__file__).parents[2] / "reproduce" / "table2.py"
REDUCED = (
    *("--methods=rand_ini", "--num_members=5", "--epochs=8", "--train_images=256"),
    *("--test_images=60", "--bim_num_steps=3"),
)
CELLS = "results/table2_digits_cells.csv"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="once is enough: what the workers compute is tested elsewhere",
    ),
]


def start(directory, *arguments):
    directory.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, SCRIPT, *REDUCED, *arguments],
        # A shell lets what it starts in the background ignore Ctrl-C.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        cwd=directory,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def one_core():
    """Let processes that are started meanwhile have one core, and so one thread."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the table of one process with one thread, which is what a worker has."""
    directory = tmp_path_factory.mktemp("alone")
    with one_core():
        run = start(directory)
    assert run.wait(timeout=600) == 0
    return (directory / CELLS).read_bytes()


def members(directory):
    """Return when each trained member was written."""
    paths = (directory / "advens-work" / "member").glob("*.npz")
    return {p: p.stat().st_mtime_ns for p in paths if ".step-" not in p.name}


def test_killed_workers(processes, alone, tmp_path):
    """One is killed in the middle of a training, one in an attack; a new one joins."""
    for name in "abc":
        processes.start_worker(name)
    run = start(tmp_path / "run", f"--cluster={processes.file}")
    store = tmp_path / "run" / "advens-work"
    wait_until(lambda: list(store.glob("member/*.step-*")))
    processes.kill("a")
    wait_until(lambda: list(store.glob("outcomes-part/*.npz")))
    trained = members(tmp_path / "run")
    assert len(trained) == 5
    processes.kill("b")
    processes.start_worker("d")
    assert run.wait(timeout=600) == 0, run.stderr.read()
    assert (tmp_path / "run" / CELLS).read_bytes() == alone
    assert members(tmp_path / "run") == trained


@pytest.mark.release
def test_killed_scheduler(processes, alone, tmp_path):
    """The command ends in one line, and goes on when it is started again."""
    processes.start_worker("a")
    run = start(tmp_path / "run", f"--cluster={processes.file}")
    wait_until(lambda: members(tmp_path / "run"))
    processes.close()
    trained = members(tmp_path / "run")
    assert run.wait(timeout=120) == 1
    assert "error: The scheduler of the cluster was lost." in run.stderr.read()
    processes.start_scheduler()
    processes.start_worker("b")
    run = start(tmp_path / "run", f"--cluster={processes.file}")
    assert run.wait(timeout=600) == 0, run.stderr.read()
    assert (tmp_path / "run" / CELLS).read_bytes() == alone
    assert members(tmp_path / "run").items() >= trained.items()


def test_interrupted(processes, tmp_path):
    """Ctrl-C leaves nothing on the cluster but the training that runs."""
    processes.start_worker("a")
    run = start(tmp_path / "run", f"--cluster={processes.file}")
    store = tmp_path / "run" / "advens-work"
    wait_until(lambda: list(store.glob("member/*.step-*")))
    assert list(store.glob("client-*"))
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode not in (None, 0)
    assert "Traceback" not in error
    assert not list(store.glob("client-*"))
    with Client(scheduler_file=str(processes.file)) as client:

        def left(dask_scheduler):
            return len(dask_scheduler.tasks), list(dask_scheduler.worker_plugins)

        wait_until(lambda: client.run_on_scheduler(left)[0] == 0)
        assert not any("client" in name for name in client.run_on_scheduler(left)[1])


@pytest.mark.release
def test_two_clients_and_a_store_that_vanishes(processes, alone, tmp_path):
    """For ten seconds, in the middle of the trainings, the directory is not there."""
    for name in "ab":
        processes.start_worker(name)
    store, hidden = tmp_path / "shared", tmp_path / "hidden"
    shared = (f"--cluster={processes.file}", f"--work_dir={store}")
    runs = {name: start(tmp_path / name, *shared) for name in ("first", "second")}
    wait_until(lambda: list(store.glob("member/*.step-*")))
    store.rename(hidden)
    time.sleep(10)
    hidden.rename(store)
    for name, run in runs.items():
        _, error = run.communicate(timeout=600)
        assert run.returncode == 0, error
        assert f"{store} has vanished. Waiting for it" in error
        assert (tmp_path / name / CELLS).read_bytes() == alone


@pytest.mark.release
def test_a_worker_with_too_little_memory(processes, tmp_path):
    processes.start_worker("a", "--nanny", "--memory-limit=2GB")
    connection = Connection(str(processes.file), tmp_path)
    too_much = Task("nothing useful", functools.partial(np.ones, 2**29))
    message = "while they did nothing useful, .*: it used [1-4].. GiB. Start workers"
    with pytest.raises(RuntimeError, match=message):
        list(connection.run([too_much]))
    connection.close()
    processes.kill("a")
    processes.start_worker("b", "--nanny", "--memory-limit=300MB")
    with pytest.raises(RuntimeError, match="while it was prepared.* too little memory"):
        Connection(str(processes.file), tmp_path)


@pytest.mark.release
def test_an_audit(processes, tmp_path):
    """All workers are killed on the way; the numbers are those of one thread alone."""
    for index, member in enumerate(load_pretrained("digits_rand_ini")):
        member.save(tmp_path / f"{index}.keras")
    command = [
        *(sys.executable, "-m", "advens.auditing", "--dataset=digits", "--images=40"),
        *("--eps=.1", "--num_steps=5", "--num_queries=20", "--num_probes=10"),
        *(str(tmp_path / f"{index}.keras") for index in range(3)),
    ]

    def audited(name, *arguments):
        return subprocess.Popen(
            [*command, f"--out={tmp_path / name}", *arguments],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )

    processes.start_worker("a")
    with one_core():
        alone = audited("alone")
    cluster = audited("cluster", f"--cluster={processes.file}")
    work = tmp_path / "cluster" / "work"
    wait_until(lambda: list(work.glob("audit/*.npz")))
    processes.kill("a")
    processes.start_worker("b")
    for run in (alone, cluster):
        _, error = run.communicate(timeout=600)
        assert run.returncode == 0, error
    outcomes = [np.load(tmp_path / d / "outcomes.npz") for d in ("alone", "cluster")]
    for name in outcomes[0].files:
        np.testing.assert_array_equal(*(found[name] for found in outcomes))


def test_a_worker_with_another_backend(processes, tmp_path):
    processes.start_worker("a", KERAS_BACKEND="jax")
    run = start(tmp_path / "run", f"--cluster={processes.file}")
    assert run.wait(timeout=120) == 1
    error = run.stderr.read().splitlines()[-1]
    assert error.startswith("error: ")
    assert "must be like its client. It has Keras's backend" in error
