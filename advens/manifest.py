"""What stands beside every table: how its numbers came about."""

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import joblib
import keras

import advens

_PACKAGES: Final = (
    *("keras", "tensorflow", "jax", "numpy", "pandas", "scikit-learn", "scipy"),
    *("statsmodels", "seaborn", "joblib", "absl-py", "rich"),
    # Beside which the benchmarks set it.
    *("adversarial-robustness-toolbox", "cleverhans", "foolbox", "torch"),
    "torchattacks",
)


def manifest(**entries: Any) -> dict[str, Any]:
    """Return `entries` behind the command, the versions and the hardware."""
    return {
        "command": shlex.join(["python", *map(_relative, sys.argv[:1]), *sys.argv[1:]]),
        "versions": versions(),
        "hardware": hardware(),
        **entries,
    }


def read(path: Path) -> dict[str, Any]:
    """Read a manifest; where there is none, return an empty one.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"{path} is no whole manifest ({error}). Remove it, or give another out_dir"
        ) from error


def with_seconds(record: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the seconds of what an earlier run of the same had done.

    A stage has the longer time of the two: what a run finds in the store takes none.

    Args:
        record: of a run.
        before: of an earlier one; of other settings or hardware, it changes nothing.
    """
    same = ("settings", "attacks", "seeds", "data", "hardware")
    now = json.loads(json.dumps(record))
    if any(before.get(key) != now[key] for key in same):
        return record
    seconds = record["seconds_per_stage"].items()
    spent = before["seconds_per_stage"]
    longer = {stage: max(spent.get(stage, 0), took) for stage, took in seconds}
    return {**record, "seconds_per_stage": longer}


def versions() -> dict[str, str]:
    """Return the versions of Python, of advens and of what it rests on."""
    found = {"python": platform.python_version(), "advens": advens.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return the backend, the processor, the number of cores and the accelerators."""
    return {
        "backend": keras.backend.backend(),
        "devices": keras.distribution.list_devices(),
        "processor": _processor(),
        "cores": joblib.cpu_count(),
        "system": platform.platform(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as handle:
            for line in handle:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _relative(path: str) -> str:
    """Keep the machine's own folders out of what is published."""
    relative = os.path.relpath(path)
    return os.path.basename(path) if relative.startswith("..") else relative
