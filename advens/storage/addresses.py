"""Where an artefact is kept follows from what it is made from."""

import hashlib
import json
from collections.abc import Mapping
from typing import Final, TypeAlias

from advens.storage.npz import Arrays

SCHEMA: Final = 1  # Raise it when the meaning of an artefact changes.

# What an artefact is made from, as far as JSON can hold it.
Spec: TypeAlias = Mapping[str, object]


def digest(spec: Spec) -> str:
    """Return the name of an artefact: 32 hexadecimal digits of a SHA-256.

    The order of the keys does not matter. A tuple and a list of the same values have
    the same digest; 1 and 1.0 do not.

    Args:
        spec: what the artefact is made from.

    Raises:
        TypeError: if JSON cannot hold `spec`, as it cannot hold arrays, NaN, and keys
            that are not strings.
    """
    try:
        text = _canonical_json({"schema": SCHEMA, "spec": dict(spec)})
        if not _has_string_keys(spec):
            raise TypeError("keys must be strings")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`spec` must be a mapping that JSON can hold ({error}). "
            f"Received: spec={spec!r}"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def description(kind: str, spec: Spec, step: int | None, arrays: Arrays) -> str:
    """Return a text that tells the content of a file from that of any other file.

    The names of the arrays are part of it: a single wrong bit in a zip directory can
    hide some of its entries and leave the others whole.
    """
    identity = {"kind": kind, "schema": SCHEMA, "spec": dict(spec), "step": step}
    return _canonical_json({"arrays": sorted(arrays), **identity})


def _canonical_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _has_string_keys(value: object) -> bool:
    # `json` writes the keys 1 and "1" alike, which would give two specs one digest.
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _has_string_keys(v) for k, v in value.items())
    return not isinstance(value, list | tuple) or all(map(_has_string_keys, value))
