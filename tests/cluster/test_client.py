"""A cluster of threads in this process, and clusters that are not right."""

import dataclasses
import errno
import functools
import os
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens import backend
from advens.cluster import client, connection, worker
from advens.cluster.client import Cluster, Unit
from advens.cluster.worker import Settings
from advens.storage import store
from advens.storage.store import Store
from advens.strauss2017 import experiments
from tests.cluster.processes import wait_until


def test_the_table_is_that_of_one_process(cluster, make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_PART", 30)
    run = make_run(tmp_path / "store", cluster=cluster)
    cells = experiments.table2(run, ["rand_ini"])
    alone = experiments.table2(make_run(tmp_path / "alone"), ["rand_ini"])
    for cell, other in zip(cells, alone, strict=True):
        assert_array_equal(cell.correct, other.correct)
    # A second run sends nothing.
    monkeypatch.setattr(cluster._connection._client, "submit", None)
    again = experiments.table2(
        make_run(tmp_path / "store", cluster=cluster), ["rand_ini"]
    )
    for cell, other in zip(again, alone, strict=True):
        assert_array_equal(cell.correct, other.correct)


def test_images_are_counted_once(cluster, make_run, tmp_path):
    run = make_run(tmp_path / "store", cluster=cluster)
    members = run.members("rand_ini")
    run.train("rand_ini", members)
    counts = []
    evaluations = [
        client.Evaluation(run._spec(members, None, []), members, None, []),
    ]
    for _ in range(2):
        x, y = run.dataset.x_test, run.dataset.y_test
        cluster.evaluate(evaluations, x, y, on_images=counts.append)
    assert counts == [0, 40, 40]


def test_an_error_names_the_work_and_the_worker(cluster, make_run, tmp_path):
    run = make_run(tmp_path / "store", cluster=cluster)
    broken = dataclasses.replace(run.dataset, x_train=run.dataset.x_train[:, :5])
    with pytest.raises(
        RuntimeError,
        match=r"^the training of member \w+: .* on the worker at inproc://",
    ):
        cluster.fit_members(run.members("rand_ini"), broken)


def test_a_full_disk(cluster, make_run, tmp_path, monkeypatch):
    run = make_run(tmp_path / "store", cluster=cluster)

    def write(handle, arrays):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "write_npz", write)
    with pytest.raises(RuntimeError, match="^the training of member .*No space left"):
        cluster.fit_members(run.members("rand_ini"), run.dataset)


def test_a_store_that_cannot_be_written(threads, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Cannot write to the store"):
        Cluster("local", Store(tmp_path / "file"))


def test_workers_that_put_it_elsewhere(cluster, monkeypatch):
    monkeypatch.setattr(worker, "_store", lambda root: Store(root / "elsewhere"))
    unit = Unit("nothing", {"of": "it"}, functools.partial(dict, a=np.zeros(2)))
    with pytest.raises(RuntimeError, match="store must be shared with the workers"):
        list(cluster.make("kind", [unit]))


def test_time_is_over(cluster):
    unit = Unit("nothing", {"of": "it"}, functools.partial(dict, a=np.zeros(2)))
    assert list(cluster.make("kind", [unit], until=0)) == []
    [(made, arrays)] = cluster.make("kind", [unit])
    assert made is unit
    assert_array_equal(arrays["a"], 0)


def test_while_there_is_no_worker(cluster, monkeypatch):
    monkeypatch.setattr(connection, "_SECONDS_ALONE", 0.1)
    local = cluster._connection._client.cluster
    local.scale(0)
    wait_until(lambda: not cluster._connection._workers(), seconds=20)
    timer = threading.Timer(1, local.scale, args=[1])
    timer.start()
    unit = Unit("nothing", {"of": "it"}, functools.partial(dict, a=np.zeros(2)))
    with pytest.warns(connection.NoWorkerWarning, match="goes on when it has one"):
        assert len(list(cluster.make("kind", [unit]))) == 1


def test_distilled_members_follow_their_teachers(cluster, make_run, tmp_path):
    run = make_run(tmp_path / "store", cluster=cluster, num_members=1)
    [member] = run.members("bagging+def_dist")
    cluster.fit_members([member, member], run.dataset)
    assert run.store.has("member", member.spec)
    assert run.store.has("member", member.teacher.spec)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9", "nonsense://here", "127.0.0.1:notaport", "no.json"]
)
def test_no_scheduler(address, tmp_path):
    with pytest.raises(RuntimeError, match="`cluster` must be 'local', a scheduler's"):
        Cluster(address, Store(tmp_path))


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_no_scheduler_file(content, tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text(content)
    with pytest.raises(RuntimeError, match="`cluster` must be 'local', a scheduler's"):
        Cluster(str(path), Store(tmp_path))


def test_no_worker(processes, tmp_path):
    with pytest.raises(RuntimeError, match="must have workers. It had none for 10 sec"):
        Cluster(str(processes.file), Store(tmp_path))


def test_no_dask(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeError, match=r"`cluster` needs Dask: pip install"):
        Cluster("local", Store(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Keras's backend": "torch"}, "It has Keras's backend .*, not torch"),
        ({"Keras's floatx": "float64"}, "It has Keras's floatx float32, not float64"),
        ({"numpy": "1.0"}, r"It has numpy \d.*, not 1\.0"),
        ({"python": "2.7.0"}, r"It has python 3.*, not 2\.7\.0"),
    ],
)
def test_a_worker_must_be_like_its_client(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "make_deterministic", lambda: None)
    monkeypatch.setattr(backend, "limit_threads", lambda count: None)
    (tmp_path / "token").touch()
    usual = Settings(worker.alike(), tmp_path, "token")
    there = SimpleNamespace(address="tcp://there:1")
    worker.prepare(usual, there)
    other = dataclasses.replace(usual, alike={**usual.alike, **changes})
    with pytest.raises(RuntimeError, match=f"The worker at tcp://there:1 .*{message}"):
        worker.prepare(other, there)
    elsewhere = dataclasses.replace(usual, token="another")
    with pytest.raises(RuntimeError, match="must share the directory of the store"):
        worker.prepare(elsewhere, there)
