"""advens: train, attack and judge ensembles of Keras classifiers.

The modules follow the flow of the data: `datasets`, `pipelines`, `recipes`, `models`,
`training`, `adversarial_training`, `distillation`, `logits`, `ensemble`, `gradients`,
`attacks`, `evaluation`, `outcomes`, `experiments`, `tables`. They are imported on first
use, so that `import advens` and a script's `--help` need no backend.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "adversarial_training",
    "anomaly",
    "attacks",
    "checks",
    "claims",
    "datasets",
    "distillation",
    "ensemble",
    "evaluation",
    "examples",
    "experiments",
    "figures",
    "files",
    "gradients",
    "layers",
    "ledger",
    "logits",
    "manifest",
    "models",
    "noise_sweep",
    "outcomes",
    "pages",
    "paper",
    "pipelines",
    "process",
    "progress",
    "recipes",
    "report",
    "stacked",
    "statistics",
    "store",
    "tables",
    "trainer",
    "training",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"advens.{name}")
    raise AttributeError(f"module 'advens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
