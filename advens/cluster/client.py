"""A Dask cluster, to which work is sent."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from advens.arrays import Images, Labels
from advens.attacks.threat import Attack, Threat
from advens.cluster import worker
from advens.cluster.connection import Connection, Task
from advens.datasets import Dataset
from advens.evaluation.outcomes import join_outcomes, pack_outcomes, unpack_outcomes
from advens.evaluation.stored import KIND
from advens.storage.addresses import Spec
from advens.storage.npz import Arrays
from advens.storage.store import Store
from advens.training.recipe import Member, teachers
from advens.training.state import KIND as MEMBER

_LOG: Final = logging.getLogger(__name__)
# Images of a unit of work: whole batches, so that each has the bits of a run without a
# cluster.
_PART: Final = 1000
# Outcomes on a part of the images.
_PARTS: Final = "outcomes-part"
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


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """A piece of work whose result is kept in a store.

    Attributes:
        name: what an error calls it.
        spec: the address of its result.
        function: makes it, from what `Cluster.make` shares. It can be pickled.
    """

    name: str
    spec: Spec
    function: Callable[..., Arrays]


class Cluster:
    """Workers that train and attack. They share the directory of a store.

    Args:
        address: of a Dask scheduler, such as `"tcp://host:8786"`; the path of a
            scheduler file; or `"local"`, for one worker per core of this machine.
        store: the store.

    Attributes:
        store: the store.

    Raises:
        RuntimeError: if there is no Dask, no scheduler or no worker, or if a worker has
            other versions or does not see the store.
    """

    def __init__(self, address: str, store: Store) -> None:
        self.store = store
        self._connection = Connection(address, store.root)

    def close(self) -> None:
        """Leave the cluster. What it was still doing for this client ends."""
        self._connection.close()

    def fit_members(self, members: Sequence[Member], dataset: Dataset) -> None:
        """Train the members that the store lacks, see `training.fit_members`."""
        if first := teachers(members):
            self.fit_members(first, dataset)
        distinct = dict.fromkeys(members)
        missing = [m for m in distinct if not self.store.has(MEMBER, m.spec)]
        if not missing:
            return
        tasks = [
            Task(
                f"the training of member {member.digest}",
                functools.partial(worker.train, self.store.root, member),
            )
            for member in missing
        ]
        images = (dataset.x_train, dataset.y_train)
        for _ in self._connection.run(tasks, *images, resource=_RESOURCE):
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
        missing = [e for e in evaluations if not self.store.has(KIND, e.spec)]
        on_images((len(evaluations) - len(missing)) * len(y))
        units = {
            Unit(
                f"{evaluation.threat or 'no attack'}, images {part.start} to "
                f"{part.stop - 1}",
                {**evaluation.spec, "images": [part.start, part.stop]},
                functools.partial(
                    worker.outcomes,
                    self.store.root,
                    evaluation.members,
                    part,
                    evaluation.threat,
                    evaluation.attacks,
                ),
            ): part.stop - part.start
            for evaluation in missing
            for part in parts
        }
        made = {}
        for unit, arrays in self.make(_PARTS, list(units), x, y):
            made[unit] = unpack_outcomes(arrays)
            on_images(units[unit])
        for index, evaluation in enumerate(missing):
            of_parts = list(units)[index * len(parts) : (index + 1) * len(parts)]
            outcomes = [
                join_outcomes(of_attack)
                for of_attack in zip(*map(made.pop, of_parts), strict=True)
            ]
            self.store.save(KIND, evaluation.spec, pack_outcomes(outcomes))

    def make(
        self,
        kind: str,
        units: Sequence[Unit],
        *shared: object,
        until: float = math.inf,
    ) -> Iterator[tuple[Unit, Arrays]]:
        """Put into the store those units of work that it lacks.

        Args:
            kind: what they are.
            units: what is done.
            *shared: what all of them take; sent to each worker once.
            until: none is started after this time, in seconds since 1970.

        Yields:
            Each of them that is in the store, with its result.

        Raises:
            RuntimeError: if one fails, or workers and client have different stores.
        """
        missing = []
        for unit in units:
            if (arrays := self.store.load(kind, unit.spec)) is not None:
                _LOG.info("%s: from the store", unit.name)
                yield unit, arrays
            else:
                missing.append(unit)
        if not missing:
            return
        root = self.store.root
        tasks = {
            Task(
                unit.name,
                functools.partial(
                    worker.make, root, kind, unit.spec, unit.function, until
                ),
            ): unit
            for unit in missing
        }
        for task, made in self._connection.run(list(tasks), *shared):
            if made:
                _LOG.info("%s: done by the cluster", task.name)
                arrays = self.store.load(kind, tasks[task].spec)
                if arrays is None:
                    raise RuntimeError(
                        f"{root} must be shared with the workers. It lacks what one of "
                        "them has put there"
                    )
                yield tasks[task], arrays
