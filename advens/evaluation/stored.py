"""An evaluation that is done once: its outcomes are kept in a store."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from advens.attacks.threat import Attack, Threat
from advens.evaluation.outcomes import (
    Outcomes,
    join_outcomes,
    pack_outcomes,
    unpack_outcomes,
)
from advens.storage.addresses import Spec
from advens.storage.store import Store

KIND: Final = "outcomes"
_LOG: Final = logging.getLogger(__name__)
_CHECKPOINT_SECONDS: Final = 10


def outcomes_spec(
    evaluated: Mapping[str, object],
    *,
    threat: Threat | None,
    attacks: Sequence[Attack],
    backend: str,
) -> Spec:
    """Return the address of an evaluation's outcomes.

    Args:
        evaluated: what determines the ensemble and the images.
        threat: see `evaluate`.
        attacks: see `evaluate`.
        backend: name of Keras's backend.
    """
    return {
        **evaluated,
        "threat": threat and _threat_spec(threat),
        "attacks": [dataclasses.asdict(attack) for attack in attacks],
        "backend": backend,
    }


def _threat_spec(threat: Threat) -> Spec:
    """Return a threat's part of an address. Two fields have defaults that are none."""
    spec = dataclasses.asdict(threat)
    defaults = {"num_draws": 1, "objective": "cross_entropy"}
    return {k: v for k, v in spec.items() if k not in defaults or v != defaults[k]}


def stored_outcomes(
    store: Store,
    spec: Spec,
    num_images: int,
    evaluate_from: Callable[[int], Iterator[list[Outcomes]]],
    *,
    on_images: Callable[[int], None] = lambda count: None,
) -> list[Outcomes]:
    """Return outcomes from the store, or evaluate what it lacks.

    A killed call goes on from some seconds before the kill, at most.

    Args:
        store: where the outcomes are read and written.
        spec: their address, see `outcomes_spec`.
        num_images: number of images, >= 1.
        evaluate_from: called with the number of images that are done; yields the
            outcomes of the others, batch after batch, see `evaluate_batches`.
        on_images: called with the number of images whenever some are done.
    """
    if (arrays := store.load(KIND, spec)) is not None:
        _LOG.info("%s: from the store", _name(spec))
        on_images(num_images)
        return unpack_outcomes(arrays)
    parts: list[list[Outcomes]] = []
    done = 0
    if checkpoint := store.load_checkpoint(KIND, spec):
        done = checkpoint[0]
        parts.append(unpack_outcomes(checkpoint[1]))
        on_images(done)
    _LOG.info(
        "%s: %d of %d images to judge", _name(spec), num_images - done, num_images
    )
    saved = time.monotonic()
    # A run that was killed between its last two writes has left nothing to do.
    for batch in evaluate_from(done) if done < num_images else ():
        parts.append(batch)
        count = len(batch[0].ensemble)
        done += count
        on_images(count)
        if time.monotonic() - saved > _CHECKPOINT_SECONDS:
            parts = [_joined(parts)]
            store.save_checkpoint(KIND, spec, done, pack_outcomes(parts[0]))
            saved = time.monotonic()
    outcomes = _joined(parts)
    store.save(KIND, spec, pack_outcomes(outcomes))
    return outcomes


def _name(spec: Spec) -> str:
    threat = spec.get("threat")
    if not isinstance(threat, Mapping):
        return "no attack"
    return "attacks by " + ", ".join(
        f"{k}={v}" for k, v in threat.items() if v is not None
    )


def _joined(batches: Sequence[Sequence[Outcomes]]) -> list[Outcomes]:
    """Return the outcomes of each attack on the images of all batches."""
    return [join_outcomes(parts) for parts in zip(*batches, strict=True)]
