"""The pieces of an audit: each done once, kept in a store, within a time budget."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypedDict

import keras
import numpy as np

from advens import backend
from advens.arrays import Images, Labels
from advens.models.ensemble import Ensemble
from advens.models.votes import Votes
from advens.storage.addresses import Spec
from advens.storage.store import Store

KIND: Final = "audit"

Arrays: TypeAlias = dict[str, np.ndarray]


class Identity(TypedDict):
    """Checksums that tell ensembles and images apart."""

    members: list[str]
    votes: Votes
    x: str
    y: str
    backend: str


class Work:
    """What has been done of an audit, and what may still be done.

    Args:
        store: where finished pieces are kept; None to keep none.
        identity: what determines the ensemble and the images, see `identity_of`.
        minutes: no piece is started when they are over; None for no limit.
        show: called with the name of each piece that starts, the cost of what is done
            and that of the whole audit.

    Attributes:
        seconds: the time that all pieces took, in the runs in which they were done.
    """

    def __init__(
        self,
        store: Store | None,
        identity: Identity,
        minutes: float | None,
        show: Callable[[str, float, float], None],
    ) -> None:
        self.seconds = 0.0
        self._done = self._total = 0.0
        self._store = store
        self._identity = identity
        self._end = np.inf if minutes is None else time.monotonic() + 60 * minutes
        self._show = show

    def expect(self, cost: float) -> None:
        """Say how much work is still to come, in the units of `piece`."""
        self._total = self._done + cost

    def piece(
        self, name: str, settings: Spec, make: Callable[[], Arrays], *, cost: float
    ) -> Arrays | None:
        """Return what `make` returns, from the store if it was made before.

        Args:
            name: of the piece.
            settings: what else determines its result.
            make: makes it.
            cost: how much work it is, compared with the others.

        Returns:
            The arrays, with `"seconds"`, the time that they took; None if they are not
            in the store and the time is over.
        """
        spec = {**self._identity, "piece": name, **settings}
        self._show(name, self._done, self._total)
        arrays = self._store.load(KIND, spec) if self._store else None
        if arrays is None:
            if time.monotonic() > self._end:
                return None
            start = time.perf_counter()
            arrays = make()
            arrays["seconds"] = np.array(time.perf_counter() - start)
            if self._store:
                self._store.save(KIND, spec, arrays)
        self.seconds += float(arrays["seconds"])
        self._done += cost
        self._show(name, self._done, self._total)
        return arrays


def identity_of(ensemble: Ensemble, x: Images, y: Labels) -> Identity:
    """Return checksums that tell ensembles and images apart."""
    return {
        "members": [checksum_of(member) for member in ensemble],
        "votes": ensemble.votes,
        "x": checksum([x]),
        "y": checksum([y]),
        "backend": backend.name(),
    }


def checksum_of(model: keras.Model) -> str:
    """Return a checksum of a model's weights and, if Keras can tell it, its config."""
    try:
        config = model.to_json()
    except Exception:  # of a subclass, get_config may raise anything
        config = f"{type(model).__module__}.{type(model).__qualname__}"
    return checksum(model.get_weights(), config)


def checksum(arrays: Sequence[np.ndarray], text: str = "") -> str:
    """Return 64 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(json.dumps([str(array.dtype), array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
