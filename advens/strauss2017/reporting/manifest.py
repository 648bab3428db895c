"""The manifest beside every table: how its numbers came about."""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from advens.provenance import hardware, versions
from advens.strauss2017.readings import PRINTED

# The content of a manifest: what a JSON object can hold.
Record: TypeAlias = Mapping[str, Any]

# Runs that agree in these entries would do the same work in the same time.
_SAME_RUN: Final = ("settings", "attacks", "seeds", "data", "hardware")


def manifest(*, backend: str, devices: Sequence[str], **entries: object) -> Record:
    """Return a manifest: the command, the versions, the hardware, then `entries`.

    Args:
        backend: the name of Keras's backend, see `backend.name`.
        devices: what it computes on, see `backend.devices`.
        **entries: what else belongs into the manifest.
    """
    script, *arguments = sys.argv
    return {
        "command": shlex.join(["python", _relative(script), *arguments]),
        "versions": versions(),
        "hardware": hardware(backend=backend, devices=devices),
        **entries,
    }


def read_manifest(path: Path) -> Record:
    """Read a manifest; return an empty one if there is no such file.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"{path} is not a complete manifest ({error}). Remove it, or choose "
            "another out_dir"
        ) from error


def reading_name(record: Record) -> str:
    """Return the name of a run's reading.

    Manifests did not have it while there was only one.
    """
    return record["reading"]["name"] if "reading" in record else PRINTED.name


def with_earlier_seconds(record: Record, earlier: Record) -> Record:
    """Return a manifest that counts the time of an earlier run of the same work.

    What a run finds in the store takes it no time. Each stage therefore gets the longer
    of its two times.

    Args:
        record: the manifest of a run.
        earlier: the manifest of an earlier run. If its settings or its hardware differ,
            `record` is returned as it is.
    """
    # As it would be read from its file: a tuple becomes a list.
    written = json.loads(json.dumps(record))
    if any(earlier.get(key) != written[key] for key in _SAME_RUN):
        return record
    seconds = {
        stage: max(earlier["seconds_per_stage"].get(stage, 0), spent)
        for stage, spent in record["seconds_per_stage"].items()
    }
    return {**record, "seconds_per_stage": seconds}


def _relative(path: str) -> str:
    """Return a path without the folders of this machine, which are not published."""
    relative = os.path.relpath(path)
    return os.path.basename(path) if relative.startswith("..") else relative
