import pytest
from distributed import LocalCluster

from advens import backend
from advens.cluster import connection
from advens.cluster.client import Cluster
from advens.storage.store import Store
from tests.auditing.conftest import digits, plain  # noqa: F401
from tests.cluster.processes import Processes
from tests.strauss2017.conftest import make_run  # noqa: F401


@pytest.fixture
def processes(tmp_path):
    directory = tmp_path / "dask"
    directory.mkdir()
    running = Processes(directory)
    yield running
    running.close()


@pytest.fixture
def threads(monkeypatch):
    """Let a local cluster be of threads in this process."""

    def of_threads():
        return LocalCluster(
            n_workers=2, processes=False, threads_per_worker=1, dashboard_address=":0"
        )

    monkeypatch.setattr(connection, "_local_cluster", of_threads)
    # It cannot be undone, and other tests are random.
    monkeypatch.setattr(backend, "make_deterministic", lambda: None)
    monkeypatch.setattr(backend, "limit_threads", lambda count: None)


@pytest.fixture
def cluster(threads, tmp_path):
    connected = Cluster("local", Store(tmp_path / "store"))
    yield connected
    connected.close()
