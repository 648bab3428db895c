"""A cluster of threads in this process, and clusters that are not right."""

import dataclasses
import sys
from types import SimpleNamespace

import pytest
from numpy.testing import assert_array_equal

from advens import backend
from advens.cluster import client, worker
from advens.cluster.client import Cluster
from advens.cluster.worker import Settings
from advens.storage.store import Store
from advens.strauss2017 import experiments


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
        ({"backend": "torch"}, "It has Keras's backend .*, not torch"),
        ({"versions": {"numpy": "1.0"}}, r"It has .*numpy \d.*, not 1\.0"),
        ({"token": "another"}, "must share the directory of the store"),
    ],
)
def test_a_worker_must_be_like_its_client(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "make_deterministic", lambda: None)
    monkeypatch.setattr(backend, "limit_threads", lambda count: None)
    (tmp_path / "token").touch()
    usual = Settings(backend.name(), worker.versions(), tmp_path, "token")
    there = SimpleNamespace(address="tcp://there:1")
    worker.prepare(usual, there)
    with pytest.raises(RuntimeError, match=f"The worker at tcp://there:1 .*{message}"):
        worker.prepare(dataclasses.replace(usual, **changes), there)
