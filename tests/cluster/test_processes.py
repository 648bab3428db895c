"""Table 2 on a cluster whose processes are killed on the way."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

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
        cwd=directory,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the table of one process with one thread, which is what a worker has."""
    directory = tmp_path_factory.mktemp("alone")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        run = start(directory)
    finally:
        os.sched_setaffinity(0, cores)
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


def test_killed_scheduler(processes, alone, tmp_path):
    """The command ends in one line, and goes on when it is started again."""
    processes.start_worker("a")
    run = start(tmp_path / "run", f"--cluster={processes.file}")
    wait_until(lambda: members(tmp_path / "run"))
    processes.close()
    trained = members(tmp_path / "run")
    assert run.wait(timeout=120) == 1
    assert "error: The scheduler of the cluster or all of its" in run.stderr.read()
    processes.start_scheduler()
    processes.start_worker("b")
    run = start(tmp_path / "run", f"--cluster={processes.file}")
    assert run.wait(timeout=600) == 0, run.stderr.read()
    assert (tmp_path / "run" / CELLS).read_bytes() == alone
    assert members(tmp_path / "run").items() >= trained.items()


def test_two_clients_with_one_store(processes, alone, tmp_path):
    for name in "ab":
        processes.start_worker(name)
    shared = (f"--cluster={processes.file}", f"--work_dir={tmp_path / 'shared'}")
    runs = {name: start(tmp_path / name, *shared) for name in ("first", "second")}
    for name, run in runs.items():
        assert run.wait(timeout=600) == 0, run.stderr.read()
        assert (tmp_path / name / CELLS).read_bytes() == alone


def test_a_worker_with_another_backend(processes, tmp_path):
    processes.start_worker("a", KERAS_BACKEND="jax")
    run = start(tmp_path / "run", f"--cluster={processes.file}")
    assert run.wait(timeout=120) == 1
    error = run.stderr.read().splitlines()[-1]
    assert error.startswith("error: ")
    assert "must be like its client. It has Keras's backend" in error
