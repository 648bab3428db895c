"""What numbers were made with: the versions of software, and the hardware."""

import importlib.metadata
import logging
import platform
from collections.abc import Sequence
from typing import Any, Final

import joblib

import advens

_LOG: Final = logging.getLogger(__name__)
# The packages whose versions are recorded.
_PACKAGES: Final = (
    "keras",
    "tensorflow",
    "jax",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "statsmodels",
    "seaborn",
    "joblib",
    "absl-py",
    "rich",
    # The benchmarks compare advens with these.
    "adversarial-robustness-toolbox",
    "cleverhans",
    "foolbox",
    "torch",
    "torchattacks",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, of advens and of the packages that it uses."""
    installed = {"python": platform.python_version(), "advens": advens.__version__}
    for name in _PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def hardware(*, backend: str, devices: Sequence[str]) -> dict[str, Any]:
    """Return what computes.

    Args:
        backend: the name of Keras's backend, see `backend.name`.
        devices: what it computes on, see `backend.devices`.
    """
    return {
        "backend": backend,
        "devices": list(devices),
        "processor": _processor(),
        "cores": joblib.cpu_count(),
        "system": platform.platform(),
    }


def log_hardware(*, backend: str, devices: Sequence[str]) -> None:
    """Log what computes, see `hardware`, and by which versions."""
    of_keras, of_backend = (versions().get(name) for name in ("keras", backend))
    _LOG.info("Keras %s with %s %s", of_keras, backend, of_backend)
    found = hardware(backend=backend, devices=devices)
    _LOG.info("devices: %s", ", ".join(devices))
    _LOG.info("processor: %s, %d core(s)", found["processor"], found["cores"])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as handle:
            for line in handle:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
