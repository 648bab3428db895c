"""The connection to a Dask cluster: what its workers share, and what they do."""

import contextlib
import dataclasses
import json
import logging
import operator
import queue
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from advens.cluster import worker

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

# How many sets of shared things workers hold at a time: training and test images.
_KEPT: Final = 2
# How long a cluster may be without a worker before a user is told.
_SECONDS_ALONE: Final = 30.0


class NoWorkerWarning(UserWarning):
    """A cluster has lost all of its workers."""


class _LostError(Exception):
    """The scheduler is gone, or all workers that had what a task needs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A call on a worker.

    Attributes:
        name: what an error calls it.
        function: called with what is shared. It can be pickled.
    """

    name: str
    function: Callable[..., object]


class Connection:
    """Workers that compute as this process does.

    Args:
        address: see `Cluster`.
        root: the directory of the store, which all of them must see.

    Raises:
        RuntimeError: see `Cluster`.
    """

    def __init__(self, address: str, root: Path) -> None:
        self._shared: deque[tuple[Sequence[object], list[Future]]] = deque(maxlen=_KEPT)
        self._token = root / f"client-{uuid.uuid4().hex}"
        self._client = _connected(address)
        self._scheduler = self._client.scheduler_info()["id"]
        try:
            self._prepare(root)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the cluster. What it was still doing for this client ends."""
        cluster = getattr(self._client, "cluster", None)
        # What could fail has failed if the scheduler is lost.
        with contextlib.suppress(Exception):
            self._client.unregister_worker_plugin(self._token.name)
        self._client.close()
        if cluster is not None:
            cluster.close()
        self._token.unlink(missing_ok=True)

    def run(
        self, tasks: Sequence[Task], *shared: object, resource: str | None = None
    ) -> Iterator[tuple[Task, Any]]:
        """Yield each task when it has ended, with what it returned.

        Args:
            tasks: what is done.
            *shared: what all of them take; sent to each worker once.
            resource: which workers do it, if any of them declares this resource, each
                as many tasks at a time as it declares.

        Raises:
            RuntimeError: if one fails, naming it and its worker.
        """
        left = dict.fromkeys(tasks)
        while left:
            try:
                for task, result in self._ended(list(left), shared, resource):
                    del left[task]
                    yield task, result
            except _LostError as error:
                if not self._has_scheduler():
                    raise RuntimeError(
                        "The scheduler of the cluster was lost. The same command "
                        "continues"
                    ) from error
                # Workers took with them what was sent, so all of it is sent again.
                self._shared.clear()

    def _has_scheduler(self) -> bool:
        try:
            self._workers()
        except _LostError:
            return False
        return True

    def _ended(
        self, tasks: Sequence[Task], shared: Sequence[object], resource: str | None
    ) -> Iterator[tuple[Task, Any]]:
        """Submit tasks; yield each when it has ended, with what it returned."""
        try:
            sent = self._sent(*shared)
        except OSError as error:
            raise _LostError from error
        declared = resource and any(
            resource in (w.get("resources") or {}) for w in self._workers().values()
        )
        futures = {
            self._client.submit(
                task.function,
                *sent,
                key=f"advens-{uuid.uuid4().hex}",
                resources={resource: 1} if declared else None,
            ): task
            for task in tasks
        }
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        for future in futures:
            future.add_done_callback(ended.put)
        try:
            while futures:
                try:
                    future = ended.get(timeout=_SECONDS_ALONE)
                except queue.Empty:
                    self._wait_for_worker()
                    continue
                task = futures.pop(future)
                yield task, self._result(future, task.name)
        finally:
            self._client.cancel(list(futures))

    def _wait_for_worker(self) -> None:
        """Wait until there is a worker; say so while there is none."""
        while not self._workers():
            warnings.warn(
                "The cluster has no worker. The work goes on when it has one",
                NoWorkerWarning,
                stacklevel=2,
            )
            with contextlib.suppress(OSError):  # a timeout is one, too
                self._client.wait_for_workers(1, timeout=_SECONDS_ALONE)

    def _result(self, future: "Future", name: str) -> object:
        from distributed import CancelledError, KilledWorker

        try:
            return future.result()
        except CancelledError as error:
            raise _LostError from error
        except KilledWorker as error:
            raise RuntimeError(
                f"Workers ended while they did {name}, the last one at "
                f"{error.last_worker.address}. {self._why_ended()}"
            ) from error
        except Exception as error:
            if not self._has_scheduler():
                raise _LostError from error
            raise RuntimeError(f"{name}: {error}") from error

    def _why_ended(self) -> str:
        """Return why workers have ended, if that is known."""
        if events := self._client.get_events("worker-restart-memory"):
            _, event = events[-1]
            return (
                f"The one at {event['worker']} had too little memory: it used "
                f"{event['rss'] / 2**30:.1f} GiB. Start workers with a larger "
                "--memory-limit"
            )
        return "Their logs tell why"

    def _workers(self) -> Mapping[str, Any]:
        """Return what the scheduler knows of its workers.

        Raises:
            _LostError: if it is gone, or another one that does not know this client.
        """
        try:
            info = self._client.scheduler_info()
        except Exception as error:  # without a connection, anything may fail
            raise _LostError from error
        if info.get("id") != self._scheduler:
            raise _LostError
        return info["workers"]

    def _sent(self, *shared: object) -> "list[Future]":
        """Return what every worker holds one copy of, sent once."""
        for known, futures in self._shared:
            if len(known) == len(shared) and all(map(operator.is_, known, shared)):
                return futures
        if not shared:
            return []
        self._wait_for_worker()
        # A hash of their content would name later copies like these.
        futures = self._client.scatter(list(shared), broadcast=True, hash=False)
        self._shared.append((shared, futures))
        return futures

    def _prepare(self, root: Path) -> None:
        """Make all workers, later ones too, compute as this process does."""
        from distributed import WorkerPlugin

        settings = worker.Settings(worker.alike(), root, self._token.name)
        values = dataclasses.asdict(settings)

        class Prepared(WorkerPlugin):
            name = values["token"]

            def setup(self, worker: Any) -> None:
                # Before anything imports TensorFlow.
                from advens import process, program

                process.use_onednn()
                program.import_keras()
                from advens.cluster.worker import Settings, prepare

                prepare(Settings(**values), worker)

        self._token.touch()
        try:
            self._client.register_plugin(Prepared())
        except OSError as error:
            raise RuntimeError(
                f"A worker ended while it was prepared. {self._why_ended()}"
            ) from error


def _connected(address: str) -> "Client":
    try:
        from distributed import Client
    except ImportError as error:
        raise RuntimeError(
            f'`cluster` needs Dask: pip install "advens[cluster]". ({error})'
        ) from error
    # A script would print every connection.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        if address == "local":
            return Client(_local_cluster())
        path = Path(address)
        url = json.loads(path.read_text())["address"] if path.is_file() else address
        client = Client(url, timeout=10)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RuntimeError(
            "`cluster` must be 'local', a scheduler's address as tcp://host:8786, or "
            f"its file. Received: {address!r} ({type(error).__name__}: {error})"
        ) from error
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=10)
    if not client.scheduler_info()["workers"]:
        client.close()
        raise RuntimeError(
            f"The cluster at {address} must have workers. It had none for 10 seconds"
        )
    return client


def _local_cluster() -> "LocalCluster":
    """Return a worker for each core of this machine."""
    from distributed import LocalCluster

    return LocalCluster(
        threads_per_worker=1, dashboard_address=":0", silence_logs=logging.ERROR
    )
