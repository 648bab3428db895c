"""The settings of the defences, as data. Nothing here needs Keras."""

import dataclasses
from typing import Final, Literal

from advens.checks import check_at_least, check_choices, check_positive

PerturbationLabels = Literal["true", "predicted"]
PerturbationLoss = Literal["exact", "logits"]
DistillationFormula = Literal["printed", "papernot"]

# Goodfellow et al. 2014, arXiv:1412.6572, Section 6.
DEFAULT_RHO: Final = 0.5
# Papernot et al. 2016, arXiv:1511.04508; Strauss et al. 2017, Section 4, use it too.
DEFAULT_TEMPERATURE: Final = 10.0


@dataclasses.dataclass(frozen=True)
class AdversarialSettings:
    """The settings of adversarial training.

    Attributes:
        eps: size of the FGSM perturbation, in units of the [0, 1] range, >= 0
            (docs/protocol.md, point 19).
        rho: weight of the loss of the unperturbed images, in [0, 1].
        box: whether the perturbed images are clipped to [0, 1].
        labels: `"true"`, or `"predicted"`: perturb away from what the network predicts
            (docs/protocol.md, point 20).
        loss: the loss whose gradient the perturbation follows; see `Threat`.
    """

    eps: float
    rho: float = DEFAULT_RHO
    box: bool = False
    labels: PerturbationLabels = "true"
    loss: PerturbationLoss = "exact"

    def __post_init__(self) -> None:
        check_at_least("eps", self.eps, 0)
        if not 0 <= self.rho <= 1:
            raise ValueError(f"`rho` must be in [0, 1]. Received: rho={self.rho}")
        check_choices(self, labels=PerturbationLabels, loss=PerturbationLoss)


@dataclasses.dataclass(frozen=True)
class DistillationSettings:
    """The settings of defensive distillation.

    Attributes:
        temperature: T, > 0.
        formula: how the labels are smoothed (docs/protocol.md, point 21). `"printed"`:
            softmax(F(x) / T) of the teacher's probabilities F, as Strauss et al. 2017
            print it in Section 4; `"papernot"`: softmax(Z(x) / T) of its logits Z, the
            student trained at T and used at 1 (Papernot et al. 2016, arXiv:1511.04508).
    """

    temperature: float = DEFAULT_TEMPERATURE
    formula: DistillationFormula = "printed"

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_choices(self, formula=DistillationFormula)
