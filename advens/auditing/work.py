"""The pieces of an audit: each done once, kept in a store, within a time budget."""

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypedDict

import numpy as np

from advens import backend
from advens.arrays import Images, Ints, Labels
from advens.auditing.checksums import checksum, checksum_of
from advens.auditing.packed import PackedEnsemble, packed, unpacked
from advens.cluster.client import Cluster, Unit
from advens.models.ensemble import Ensemble
from advens.models.votes import Votes
from advens.storage.addresses import Spec
from advens.storage.store import Store

KIND: Final = "audit"

_LOG: Final = logging.getLogger(__name__)

Arrays: TypeAlias = dict[str, np.ndarray]


class Identity(TypedDict):
    """Checksums that tell ensembles and images apart."""

    members: list[str]
    votes: Votes
    x: str
    y: str
    backend: str


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of an audit.

    Attributes:
        name: what the progress calls it.
        settings: what determines its result, beside the identity of the audit.
        rows: `(k,)`, the images that it is about.
        make: makes it, from the ensemble, these images and their labels. It can be
            pickled.
        cost: how much work it is, compared with the others.
    """

    name: str
    settings: Spec
    rows: Ints
    make: Callable[[Ensemble, Images, Labels], Arrays]
    cost: float


class Work:
    """What has been done of an audit, and what may still be done.

    Args:
        ensemble: what is audited.
        x: `(n, ...)` float32 in [0, 1].
        y: `(n,)` int.
        identity: what determines the ensemble and the images, see `identity_of`.
        store: where finished pieces are kept; None to keep none.
        cluster: whose workers do the pieces; its store is `store`.
        minutes: no piece is started when they are over; None for no limit.
        show: called with the name of a piece, the cost of what is done and that of the
            whole audit.

    Attributes:
        ensemble: what is audited.
        x: the images.
        y: their labels.
        seconds: the time that all pieces took, in the runs in which they were done.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        x: Images,
        y: Labels,
        identity: Identity,
        *,
        store: Store | None = None,
        cluster: Cluster | None = None,
        minutes: float | None = None,
        show: Callable[[str, float, float], None] = lambda *_: None,
    ) -> None:
        self.seconds = 0.0
        self._done = self._total = 0.0
        self.ensemble, self.x, self.y = ensemble, x, y
        self._identity = identity
        self._store = store
        self._cluster = cluster
        if cluster:  # one object for all pieces, so that it is sent once
            self._packed = packed(ensemble, identity["members"])
        self._end = math.inf if minutes is None else time.time() + 60 * minutes
        self._show = show

    def expect(self, cost: float) -> None:
        """Say how much work is still to come, in the units of `Piece`."""
        self._total = self._done + cost

    def do(self, pieces: Sequence[Piece]) -> list[Arrays | None]:
        """Do those pieces that the store lacks.

        Returns:
            What each of them made, with `"seconds"`, the time that it took; None for
            those that the time was over for.
        """
        done: dict[int, Arrays] = {}
        if pieces:
            self._show(pieces[0].name, self._done, self._total)
        made = self._on(self._cluster, pieces) if self._cluster else self._here(pieces)
        for index, arrays in made:
            done[index] = arrays
            self.seconds += float(arrays["seconds"])
            self._done += pieces[index].cost
            self._show(pieces[index].name, self._done, self._total)
        return [done.get(index) for index in range(len(pieces))]

    def _here(self, pieces: Sequence[Piece]) -> Iterator[tuple[int, Arrays]]:
        for index, piece in enumerate(pieces):
            self._show(piece.name, self._done, self._total)
            spec = self._spec(piece)
            arrays = self._store.load(KIND, spec) if self._store else None
            origin = "from the store" if arrays else "to be computed"
            _LOG.info("%s, %d images: %s", piece.name, len(piece.rows), origin)
            if arrays is None:
                if time.time() > self._end:
                    continue
                arrays = _made(piece, self.ensemble, self.x, self.y)
                if self._store:
                    self._store.save(KIND, spec, arrays)
            yield index, arrays

    def _on(
        self, cluster: Cluster, pieces: Sequence[Piece]
    ) -> Iterator[tuple[int, Arrays]]:
        indices = {
            Unit(
                piece.name, self._spec(piece), functools.partial(_made_there, piece)
            ): index
            for index, piece in enumerate(pieces)
        }
        shared = self._packed, self.x, self.y
        for unit, arrays in cluster.make(KIND, list(indices), *shared, until=self._end):
            yield indices[unit], dict(arrays)

    def _spec(self, piece: Piece) -> Spec:
        return {**self._identity, "piece": piece.name, **piece.settings}


def _made(piece: Piece, ensemble: Ensemble, x: Images, y: Labels) -> Arrays:
    start = time.perf_counter()
    arrays = piece.make(ensemble, x[piece.rows], y[piece.rows])
    return {**arrays, "seconds": np.array(time.perf_counter() - start)}


def _made_there(piece: Piece, packed: PackedEnsemble, x: Images, y: Labels) -> Arrays:
    """Do a piece on a worker of a cluster."""
    return _made(piece, unpacked(packed), x, y)


def identity_of(ensemble: Ensemble, x: Images, y: Labels) -> Identity:
    """Return checksums that tell ensembles and images apart."""
    return {
        "members": [checksum_of(member) for member in ensemble],
        "votes": ensemble.votes,
        "x": checksum([x]),
        "y": checksum([y]),
        "backend": backend.name(),
    }
