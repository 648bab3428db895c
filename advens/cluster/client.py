"""A Dask cluster, to which work is sent."""

import contextlib
import dataclasses
import json
import logging
import operator
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from advens import backend
from advens.arrays import Images, Labels
from advens.attacks.threat import Attack, Threat
from advens.cluster import worker
from advens.datasets import Dataset
from advens.evaluation.outcomes import join_outcomes, pack_outcomes, unpack_outcomes
from advens.evaluation.stored import KIND
from advens.storage.addresses import Spec, digest
from advens.storage.store import Store
from advens.training.recipe import Member, teachers
from advens.training.state import KIND as MEMBER

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

# Images of a unit of work: whole batches, so that each has the bits of a run without a
# cluster.
_PART: Final = 1000
# How many sets of arrays workers hold at a time: training and test images.
_KEPT_ARRAYS: Final = 2
# Workers that declare this resource train so many members at a time.
_RESOURCE: Final = "training"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A threat to the ensemble of some members, whose outcomes have an address.

    Attributes:
        spec: the address.
        members: the members.
        threat: see `evaluate`.
        attacks: see `evaluate`.
    """

    spec: Spec
    members: Sequence[Member]
    threat: Threat | None
    attacks: Sequence[Attack]


class Cluster:
    """Workers that train and attack. They share the directory of a store.

    Args:
        address: of a Dask scheduler, such as `"tcp://host:8786"`; the path of a
            scheduler file; or `"local"`, for one worker per core of this machine.
        store: the store.

    Raises:
        RuntimeError: if there is no Dask, no scheduler or no worker, or if a worker has
            other versions or does not see the store.
    """

    def __init__(self, address: str, store: Store) -> None:
        self._store = store
        self._arrays: deque[tuple[Sequence[np.ndarray], list[Future]]] = deque(
            maxlen=_KEPT_ARRAYS
        )
        self._token = f"client-{uuid.uuid4().hex}"
        self._client = _connected(address)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the cluster. What it was still doing for this client ends."""
        cluster = getattr(self._client, "cluster", None)
        # What could fail has failed if the scheduler is lost.
        with contextlib.suppress(Exception):
            self._client.unregister_worker_plugin(self._token)
        self._client.close()
        if cluster is not None:
            cluster.close()
        (self._store.root / self._token).unlink(missing_ok=True)

    def fit_members(self, members: Sequence[Member], dataset: Dataset) -> None:
        """Train the members that the store lacks, see `training.fit_members`."""
        if first := teachers(members):
            self.fit_members(first, dataset)
        distinct = dict.fromkeys(members)
        missing = [m for m in distinct if not self._store.has(MEMBER, m.spec)]
        if not missing:
            return
        x, y = self._sent(dataset.x_train, dataset.y_train)
        resources = self._resources()
        tasks = {
            self._client.submit(
                worker.train,
                self._store.root,
                member,
                x,
                y,
                key=f"train-{member.digest}-{uuid.uuid4().hex}",
                resources=resources,
            ): f"the training of member {member.digest}"
            for member in missing
        }
        for _ in self._ended(tasks):
            pass

    def evaluate(
        self,
        evaluations: Sequence[Evaluation],
        x: Images,
        y: Labels,
        *,
        on_images: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Put into the store the outcomes of those evaluations that it lacks.

        Args:
            evaluations: what is evaluated.
            x: `(n, h, w, c)` float32 in [0, 1].
            y: `(n,)` int labels.
            on_images: called with the number of images whenever some are done.
        """
        starts = range(0, len(y), _PART)
        parts = [slice(start, min(start + _PART, len(y))) for start in starts]
        missing = [e for e in evaluations if not self._store.has(KIND, e.spec)]
        on_images((len(evaluations) - len(missing)) * len(y))
        if not missing:
            return
        images, labels = self._sent(x, y)
        tasks, sizes = {}, {}
        for evaluation in missing:
            for part in parts:
                spec = _of_part(evaluation.spec, part)
                future = self._client.submit(
                    worker.attack,
                    self._store.root,
                    spec,
                    evaluation.members,
                    images,
                    labels,
                    part,
                    evaluation.threat,
                    evaluation.attacks,
                    key=f"attack-{digest(spec)}-{uuid.uuid4().hex}",
                )
                threat = evaluation.threat or "no attack"
                tasks[future] = f"{threat}, images {part.start} to {part.stop - 1}"
                sizes[future] = part.stop - part.start
        for future in self._ended(tasks):
            on_images(sizes[future])
        for evaluation in missing:
            self._join(evaluation, parts)

    def _join(self, evaluation: Evaluation, parts: Sequence[slice]) -> None:
        """Put the outcomes on all images together."""
        found = []
        for part in parts:
            arrays = self._store.load(worker.PART, _of_part(evaluation.spec, part))
            if arrays is None:
                raise RuntimeError(
                    f"{self._store.root} must be shared with the workers. It lacks "
                    "what one of them has put there"
                )
            found.append(unpack_outcomes(arrays))
        outcomes = [join_outcomes(of_attack) for of_attack in zip(*found, strict=True)]
        self._store.save(KIND, evaluation.spec, pack_outcomes(outcomes))

    def _sent(self, *arrays: np.ndarray) -> "list[Future]":
        """Return arrays of which every worker holds one copy, sent once."""
        for known, futures in self._arrays:
            if all(map(operator.is_, known, arrays)):
                return futures
        # A hash of their content would name later copies like these.
        futures = self._client.scatter(list(arrays), broadcast=True, hash=False)
        self._arrays.append((arrays, futures))
        return futures

    def _resources(self) -> dict[str, int] | None:
        workers = self._client.scheduler_info()["workers"].values()
        declared = any(_RESOURCE in (w.get("resources") or {}) for w in workers)
        return {_RESOURCE: 1} if declared else None

    def _ended(self, tasks: "Mapping[Future, str]") -> "Iterator[Future]":
        """Yield each task when it has ended.

        Args:
            tasks: their names.

        Raises:
            RuntimeError: if one fails, naming it and its worker.
        """
        from distributed import CancelledError, KilledWorker, as_completed

        try:
            for future in as_completed(list(tasks)):
                name = tasks[future]
                try:
                    future.result()
                except CancelledError as error:
                    raise RuntimeError(
                        "The scheduler of the cluster or all of its workers were lost. "
                        "The same command continues"
                    ) from error
                except KilledWorker as error:
                    raise RuntimeError(
                        f"Workers ended while they did {name}, the last one at "
                        f"{error.last_worker.address}. One that needs more memory than "
                        "its limit is ended, too: its log tells"
                    ) from error
                except Exception as error:
                    raise RuntimeError(f"{name}: {error}") from error
                yield future
        finally:
            self._client.cancel(list(tasks))

    def _prepare(self) -> None:
        """Make all workers, later ones too, compute as this process does."""
        from distributed import WorkerPlugin

        settings = worker.Settings(
            backend.name(),
            worker.versions(),
            self._store.root,
            self._token,
        )
        values = dataclasses.asdict(settings)

        class Prepared(WorkerPlugin):
            name = values["token"]

            def setup(self, worker: Any) -> None:
                # Before anything imports TensorFlow.
                from advens import process

                process.use_onednn()
                from advens.cluster.worker import Settings, prepare

                prepare(Settings(**values), worker)

        (self._store.root / self._token).touch()
        self._client.register_plugin(Prepared())


def _of_part(spec: Spec, part: slice) -> Spec:
    return {**spec, "images": [part.start, part.stop]}


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
