"""Trained ensembles that come with advens, so that a first look needs no training.

An ensemble `NAME` is two files of this directory: `NAME.npz`, the members' weights in
float16, and `NAME.json`, its card: how it was trained, how accurate it is, checksums.
`reproduce/pretrained.py` makes them.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from advens.arrays import Floats
from advens.models.architecture import Architecture
from advens.storage.npz import read_npz, write_npz

if TYPE_CHECKING:
    from advens.models.ensemble import Ensemble

DIRECTORY: Final = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the ensembles."""
    return sorted(path.stem for path in DIRECTORY.glob("*.json"))


def load_pretrained(name: str) -> "Ensemble":
    """Return a trained ensemble, in float32, without any network.

    Args:
        name: one of `names()`: the data set and the row of Table 2.

    Raises:
        ValueError: if there is no such ensemble, or its file is damaged.
    """
    of_name = card(name)
    data = (DIRECTORY / f"{name}.npz").read_bytes()
    if hashlib.sha256(data).hexdigest() != of_name["sha256"]:
        raise ValueError(
            f"{DIRECTORY / name}.npz is damaged: its checksum is not that of its card. "
            "Install advens again"
        )
    return unpack(_architecture(of_name["architecture"]), data)


def card(name: str) -> dict[str, Any]:
    """Return how an ensemble was trained, and how accurate it is.

    Raises:
        ValueError: if there is no such ensemble.
    """
    if name not in names():
        raise ValueError(f"`name` must be one of {names()}. Received: name={name!r}")
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def pack(weights: Sequence[Sequence[Floats]]) -> bytes:
    """Return the weights of each member in float16, as the bytes of an npz file."""
    buffer = io.BytesIO()
    arrays = {
        f"{i:03d}-{j:03d}": np.asarray(array, "float16")
        for i, of_member in enumerate(weights)
        for j, array in enumerate(of_member)
    }
    write_npz(buffer, arrays)
    return buffer.getvalue()


def unpack(architecture: Architecture, data: bytes) -> "Ensemble":
    """Return the ensemble whose weights `pack` returned, in float32."""
    from advens.models import convnet
    from advens.models.ensemble import Ensemble

    weights: dict[str, list[Floats]] = {}
    for name, array in sorted(read_npz(data).items()):
        weights.setdefault(name.split("-")[0], []).append(array.astype("float32"))
    members = [convnet.build(architecture, seed=0) for _ in weights]
    for member, of_member in zip(members, weights.values(), strict=True):
        member.set_weights(of_member)
    return Ensemble(members)


def _architecture(settings: dict[str, Any]) -> Architecture:
    """Return the architecture that a card describes: JSON has lists for tuples."""

    def with_tuples(value: Any) -> Any:
        return tuple(map(with_tuples, value)) if isinstance(value, list) else value

    return Architecture(**{name: with_tuples(v) for name, v in settings.items()})
