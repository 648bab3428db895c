"""What a user may change of the paper's recipes and attacks."""

import dataclasses
from typing import Final

from advens.attacks.threat import Attack
from advens.checks import (
    check_at_least,
    check_choice,
    check_choices,
    check_count,
    check_positive,
)
from advens.datasets import Dataset
from advens.defenses.settings import (
    AdversarialSettings,
    DistillationFormula,
    DistillationSettings,
    PerturbationLabels,
)
from advens.models.architecture import Logits, OwnNetwork
from advens.strauss2017 import constants, networks
from advens.training.recipe import Precision, check_schedule

# What the paper does not state: the run seed, the number of single networks behind a
# row of Table 4, and for how many steps the anomaly follows BIM.
SEED: Final = 0
NUM_SINGLES: Final = 1
MAX_NUM_STEPS: Final = 12

# Pixels a side of which all convolutions and poolings of the mixed networks leave one.
_SMALLEST: Final = {"mnist": 10, "cifar10": 8}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the members of every row are trained.

    `Settings.for_dataset` fills in the paper's values.

    Attributes:
        dataset: the data set of the paper whose network and settings these are, or the
            digits.
        epochs: see `Recipe`.
        batch_size: see `Recipe`.
        optimizer: see `Recipe`.
        learning_rate: see `Recipe`.
        precision: see `Recipe`.
        noise_std: the noise of `gauss_noise`, see `Recipe`.
        logits: what stands under the softmax, see `Architecture`.
        adv_eps: the `eps` of adversarial training, see `AdversarialSettings`.
        rho: see `AdversarialSettings`.
        temperature: see `DistillationSettings`.
        distillation: the formula of distillation, see `DistillationSettings`.
        momentum: see `Recipe`.
        decay: see `Recipe`.
        adv_box: the `box` of adversarial training, see `AdversarialSettings`.
        adv_labels: the `labels` of adversarial training, see `AdversarialSettings`.
        input_shape: that of the images, if they are not the paper's.
        num_classes: how many classes they have, if they are not the paper's.
        network: the network of every member, if it is not the paper's; then `logits`
            has no effect.

    Raises:
        ValueError: if a value is out of range.
    """

    dataset: str
    epochs: int
    batch_size: int = 64  # docs/protocol.md, point 2
    optimizer: str = "adam"  # docs/protocol.md, point 1
    learning_rate: float = 1e-3  # docs/protocol.md, point 1
    precision: Precision = "float32"
    noise_std: float
    logits: Logits = "relu"  # docs/protocol.md, point 5
    adv_eps: float
    rho: float = constants.RHO
    temperature: float = constants.TEMPERATURE
    distillation: DistillationFormula = "printed"  # docs/protocol.md, point 21
    momentum: float | None = None
    decay: float | None = None
    adv_box: bool = False  # docs/protocol.md, point 20
    adv_labels: PerturbationLabels = "true"  # docs/protocol.md, point 20
    input_shape: tuple[int, int, int] | None = None
    num_classes: int | None = None
    network: OwnNetwork | None = None

    def __post_init__(self) -> None:
        check_choice("dataset", self.dataset, tuple(constants.EPOCHS))
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_positive("learning_rate", self.learning_rate)
        check_at_least("noise_std", self.noise_std, 0)
        check_choices(self, precision=Precision, logits=Logits)
        check_schedule(self.momentum, self.decay)
        AdversarialSettings(self.adv_eps, self.rho, self.adv_box, self.adv_labels)
        DistillationSettings(self.temperature, self.distillation)

    @classmethod
    def for_dataset(cls, dataset: str, **changes: object) -> "Settings":
        """Return the paper's settings for a data set, with changes.

        Args:
            dataset: name of the data set.
            **changes: attributes that differ; None stands for the paper's value.
        """
        check_choice("dataset", dataset, tuple(constants.EPOCHS))
        values: dict[str, object] = {
            "epochs": constants.EPOCHS[dataset],
            "noise_std": constants.NOISE_STD[dataset],
            # docs/protocol.md, point 19
            "adv_eps": constants.ATTACKS[dataset]["FGSM"]["eps"],
        }
        values |= {name: value for name, value in changes.items() if value is not None}
        return cls(dataset=dataset, **values)  # type: ignore[arg-type]


def settings_of(
    dataset: Dataset, network: OwnNetwork | None = None
) -> dict[str, object]:
    """Return what settings take from a data set and a network for it, if any.

    A data set that is not the paper's is treated like MNIST if its images are grey,
    otherwise like CIFAR-10.

    Raises:
        ValueError: if the images are too small for the paper's network.
    """
    own: dict[str, object] = {} if network is None else {"network": network}
    if dataset.name in constants.EPOCHS:
        return {"dataset": dataset.name, **own}
    name = "mnist" if dataset.input_shape[-1] == 1 else "cifar10"
    papers = networks.base(name)
    smallest = min(dataset.input_shape[:2])
    if network is None and smallest < _SMALLEST[name]:
        raise ValueError(
            f"Images must have at least {_SMALLEST[name]} pixels a side for the "
            f"network of {name}. Received: {dataset.name} with {dataset.input_shape}"
        )
    settings = {"dataset": name, **own}
    for field in ("input_shape", "num_classes"):
        value = getattr(dataset, field)
        if value != getattr(papers, field):
            settings[field] = value
    return settings


def paper_attacks(
    dataset: str,
    *,
    box: bool = False,
    fgsm_eps: float | None = None,
    bim_eps: float | None = None,
    bim_step_size: float | None = None,
    bim_num_steps: int | None = None,
) -> list[Attack]:
    """Return the paper's FGSM and BIM for a data set.

    Args:
        dataset: name of the data set.
        box: see `Attack`.
        fgsm_eps: FGSM's `eps`; None for the paper's, as below.
        bim_eps: BIM's `eps`.
        bim_step_size: BIM's `step_size`.
        bim_num_steps: BIM's `num_steps`.
    """
    fgsm, bim = (constants.ATTACKS[dataset][name] for name in ("FGSM", "BIM"))
    fgsm_eps = fgsm["eps"] if fgsm_eps is None else fgsm_eps
    return [
        Attack("FGSM", fgsm_eps, fgsm_eps, 1, box),
        Attack(
            "BIM",
            bim["eps"] if bim_eps is None else bim_eps,
            bim["step_size"] if bim_step_size is None else bim_step_size,
            int(bim["num_steps"]) if bim_num_steps is None else bim_num_steps,
            box,
        ),
    ]
