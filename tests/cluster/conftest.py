import pytest

from tests.cluster.processes import Processes
from tests.strauss2017.conftest import make_run  # noqa: F401


@pytest.fixture
def processes(tmp_path):
    directory = tmp_path / "dask"
    directory.mkdir()
    running = Processes(directory)
    yield running
    running.close()
