"""What a worker of a cluster does: one unit of work at a time.

What it makes lies in the store. So a unit of work that is lost with its worker, or done
twice, does no harm.
"""

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import keras

from advens import backend, process, provenance
from advens.arrays import Images, Labels
from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import evaluate
from advens.evaluation.outcomes import pack_outcomes
from advens.storage.addresses import Spec
from advens.storage.npz import Arrays
from advens.storage.store import Store
from advens.training.loaded_ensembles import LoadedEnsembles
from advens.training.members import fit_one
from advens.training.recipe import Member

if TYPE_CHECKING:
    from distributed import Worker

# Of these, bits and speed depend on the versions.
_COMPARED: Final = ("python", "advens", "keras", "tensorflow", "jax", "numpy")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all workers must have in common with their client.

    Attributes:
        alike: what results depend on, see `alike`.
        root: the directory of the store.
        token: name of a file that the client has put there.
    """

    alike: dict[str, str]
    root: Path
    token: str


def alike() -> dict[str, str]:
    """Return what results depend on in this process: versions, and Keras's settings."""
    versions = provenance.versions()
    return {
        "Keras's backend": backend.name(),
        "Keras's floatx": keras.config.floatx(),
        "Keras's epsilon": str(keras.config.epsilon()),
        "Keras's image_data_format": keras.config.image_data_format(),
        **{name: versions[name] for name in _COMPARED if name in versions},
    }


def prepare(settings: Settings, worker: "Worker") -> None:
    """Make a worker compute as its client does.

    Raises:
        RuntimeError: if it cannot, since a version, a setting or the store differs.
    """
    ours, theirs = alike(), settings.alike
    differing = [
        f"{name} {ours.get(name)}, not {theirs.get(name)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if differing:
        raise RuntimeError(
            f"The worker at {worker.address} must be like its client. It has "
            f"{', '.join(differing)}"
        )
    if not (settings.root / settings.token).exists():
        raise RuntimeError(
            f"The worker at {worker.address} must share the directory of the store. It "
            f"does not see what lies in {settings.root}"
        )
    process.keep_memory()
    backend.make_deterministic()
    backend.use_full_float32()
    # Sums over a batch are rounded otherwise by several threads.
    backend.limit_threads(1)


@contextlib.contextmanager
def _worker_named() -> Iterator[None]:
    """Say in an error on which worker it was."""
    from distributed import get_worker

    try:
        yield
    except Exception as error:
        raise RuntimeError(
            f"{type(error).__name__} on the worker at {get_worker().address}: {error}"
        ) from error


class _OfThisThread(threading.local):
    """What a thread of a worker keeps from one unit of work to the next."""

    def __init__(self) -> None:
        self.ensembles = LoadedEnsembles()


_of_this_thread = _OfThisThread()
# Opening one writes a file.
_store = functools.lru_cache(maxsize=4)(Store)


def train(root: Path, member: Member, x: Images, y: Labels) -> None:
    """Train a member, or what is left to do of it, into the store."""
    with _worker_named():
        fit_one(member, x, y, _store(root))


def outcomes(
    root: Path,
    members: Sequence[Member],
    part: slice,
    threat: Threat | None,
    attacks: Sequence[Attack],
    x: Images,
    y: Labels,
) -> Arrays:
    """Return how the ensemble of trained members fares on a part of the images."""
    ensemble = _of_this_thread.ensembles.load(members, _store(root))
    return pack_outcomes(
        evaluate(ensemble, x[part], y[part], threat=threat, attacks=attacks)
    )


def make(
    root: Path,
    kind: str,
    spec: Spec,
    function: Callable[..., Arrays],
    until: float,
    *shared: object,
) -> bool:
    """Put what a function makes into the store, unless it is there.

    Args:
        root: the directory of the store.
        kind: what it is.
        spec: its address.
        function: called with what is shared.
        until: it is not called after this time, in seconds since 1970.
        *shared: what all units of work take.

    Returns:
        Whether it is in the store.
    """
    with _worker_named():
        store = _store(root)
        if not store.has(kind, spec):
            if time.time() > until:
                return False
            store.save(kind, spec, function(*shared))
        return True
