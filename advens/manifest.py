"""What stands beside every table: how its numbers came about."""

import importlib.metadata
import os
import platform
import shlex
import sys
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
