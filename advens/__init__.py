"""advens: train, attack and judge ensembles of Keras classifiers.

The public names below are imported on first use, so that `import advens` needs no
backend. `advens.strauss2017` reproduces the paper with them.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advens.attacks.compiled import gradient
    from advens.attacks.fgsm_bim import AdversarialExamples, bim, fgsm
    from advens.attacks.threat import Attack, Threat
    from advens.auditing.audit import audit
    from advens.auditing.result import Audit
    from advens.defenses.adversarial_training import AdversarialTraining
    from advens.defenses.distillation import distill
    from advens.evaluation.evaluate import adversarial_images, evaluate
    from advens.evaluation.outcomes import Outcomes, worst_case
    from advens.models.ensemble import Ensemble
    from advens.pretrained import load_pretrained

__version__ = "1.0.0"

_MODULES = {
    "AdversarialExamples": "attacks.fgsm_bim",
    "AdversarialTraining": "defenses.adversarial_training",
    "Attack": "attacks.threat",
    "Audit": "auditing.result",
    "Ensemble": "models.ensemble",
    "Outcomes": "evaluation.outcomes",
    "Threat": "attacks.threat",
    "adversarial_images": "evaluation.evaluate",
    "audit": "auditing.audit",
    "bim": "attacks.fgsm_bim",
    "distill": "defenses.distillation",
    "evaluate": "evaluation.evaluate",
    "fgsm": "attacks.fgsm_bim",
    "gradient": "attacks.compiled",
    "load_pretrained": "pretrained",
    "worst_case": "evaluation.outcomes",
}

__all__ = [
    "AdversarialExamples",
    "AdversarialTraining",
    "Attack",
    "Audit",
    "Ensemble",
    "Outcomes",
    "Threat",
    "adversarial_images",
    "audit",
    "bim",
    "distill",
    "evaluate",
    "fgsm",
    "gradient",
    "load_pretrained",
    "worst_case",
]


if not TYPE_CHECKING:  # for which any name would be one of this module

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            module = importlib.import_module(f"advens.{_MODULES[name]}")
            return getattr(module, name)
        raise AttributeError(f"module 'advens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
