"""What the paper claims, as data. `advens.strauss2017.claims` tests it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from advens.strauss2017 import constants
from advens.strauss2017.rows import TABLE2_ROWS


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence of the paper, in other words, that outcomes can confirm or refute.

    Attributes:
        key: its name.
        section: where it stands in the paper.
        text: what it says.
        datasets: the data sets that it is about.
        rests_on: the comparisons that must all hold: `A > B`, `A > B + 0.1`,
            `0.9 > A > 0.5`, where `A` and `B` are accuracies, as
            `<attack>/<row>/<column>`. The name of a group in braces stands for each of
            its entries in turn, see `GROUPS`.
    """

    key: str
    section: str
    text: str
    datasets: tuple[str, ...]
    rests_on: Sequence[str]

    def is_about(self, dataset: str) -> bool:
        """Return whether it is about a data set, or the digits stand in for that."""
        known = dataset if dataset in constants.EPOCHS else "digits"
        return known in self.datasets


GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "attack": ("FGSM", "BIM"),
    "row": TABLE2_ROWS,
    "plain": ("rand_ini", "mix_mod"),
    "noiseless": ("rand_ini", "mix_mod", "bagging"),
    "clean": ("no_attack_single", "no_attack_ensemble"),
    "ensemble": ("grad1_ensemble", "grad2_ensemble"),
    "defense": ("adv_train", "def_dist"),
}

_MNIST: Final = "Section 4, MNIST"
_CIFAR10: Final = "Section 4, CIFAR-10"
_MNIST_CIFAR10: Final = "Section 4, MNIST and CIFAR-10"
_OTHERS: Final = "Section 4, Comparison with other methods"
# `digits`, and any other data set, stands in for MNIST in what the paper says of both
# data sets.
_ALL: Final = ("digits", "mnist", "cifar10")

# The paper does not say how exact its words are. Read here: "roughly" and the ends of a
# range allow 0.02 (0.005 near 99 %), "slightly" 0.01, a tie 0.005; "clearly" asks for
# 0.02.
CLAIMS: Final = (
    # Table 2.
    Claim(
        "clean_ensembles_beat_singles",
        _MNIST_CIFAR10,
        "Without attack every ensemble is more accurate than its single networks.",
        _ALL,
        ["FGSM/{row}/no_attack_ensemble > FGSM/{row}/no_attack_single"],
    ),
    Claim(
        "clean_level_mnist",
        _MNIST,
        "Without attack all accuracies are roughly 99 %, 98.5 % at least.",
        ("mnist",),
        ["FGSM/{row}/{clean} > 0.99 - 0.005"],
    ),
    Claim(
        "clean_gain_below_1_point",
        _MNIST,
        "Without attack an ensemble gains less than one point over its networks.",
        ("mnist",),
        ["FGSM/{row}/no_attack_single > FGSM/{row}/no_attack_ensemble - 0.01"],
    ),
    Claim(
        "grad1_ensembles_beat_singles",
        _MNIST_CIFAR10,
        "One member's gradient fools that member more often than the ensemble.",
        _ALL,
        ["{attack}/{row}/grad1_ensemble > {attack}/{row}/grad1_single"],
    ),
    Claim(
        "grad2_ensembles_beat_singles",
        _MNIST_CIFAR10,
        "Under Grad. 2, too, ensembles keep more than single networks do.",
        _ALL,
        ["{attack}/{row}/grad2_ensemble > {attack}/{row}/grad1_single"],
    ),
    Claim(
        "fgsm_grad2_stronger",
        _MNIST_CIFAR10,
        "FGSM hurts an ensemble more through Grad. 2 than through Grad. 1.",
        _ALL,
        ["FGSM/{row}/grad1_ensemble > FGSM/{row}/grad2_ensemble"],
    ),
    Claim(
        "bim_grad2_weaker",
        _MNIST_CIFAR10,
        "BIM hurts an ensemble less through Grad. 2 than through Grad. 1: the anomaly.",
        _ALL,
        ["BIM/{row}/grad2_ensemble > BIM/{row}/grad1_ensemble"],
    ),
    Claim(
        "fgsm_singles_level_mnist",
        _MNIST,
        "FGSM leaves single networks roughly 35 to 56 %.",
        ("mnist",),
        ["0.56 + 0.02 > FGSM/{row}/grad1_single > 0.35 - 0.02"],
    ),
    Claim(
        "fgsm_ensembles_level_mnist",
        _MNIST,
        "FGSM leaves ensembles roughly 57 to 78 % (Grad. 1), 45 to 70 % (Grad. 2).",
        ("mnist",),
        [
            "0.78 + 0.02 > FGSM/{row}/grad1_ensemble > 0.57 - 0.02",
            "0.70 + 0.02 > FGSM/{row}/grad2_ensemble > 0.45 - 0.02",
        ],
    ),
    Claim(
        "fgsm_gain_7_points",
        _MNIST,
        "Under FGSM ensembles gain roughly 7 points, or more, over single networks.",
        ("mnist",),
        ["FGSM/{row}/{ensemble} > FGSM/{row}/grad1_single + 0.07 - 0.02"],
    ),
    Claim(
        "bim_hits_singles_harder",
        _MNIST,
        "BIM leaves single networks less than FGSM does.",
        ("mnist",),
        ["FGSM/{row}/grad1_single > BIM/{row}/grad1_single"],
    ),
    Claim(
        "bim_singles_level_mnist",
        _MNIST,
        "Under BIM single networks keep clearly more than 10 % with Gauss Noise alone.",
        ("mnist",),
        [
            "BIM/gauss_noise/grad1_single > 0.10 + 0.02",
            "0.10 + 0.02 > BIM/{noiseless}/grad1_single",
        ],
    ),
    Claim(
        "bim_singles_lowest_mnist",
        _MNIST,
        "BIM leaves single networks as little as around 6 %.",
        ("mnist",),
        ["0.06 + 0.02 > BIM/mix_mod/grad1_single > 0.06 - 0.02"],
    ),
    Claim(
        "bim_ensembles_level_mnist",
        _MNIST,
        "BIM leaves ensembles roughly 65 to 92 % (Grad. 1), 89 to 98 % (Grad. 2).",
        ("mnist",),
        [
            "0.92 + 0.02 > BIM/{row}/grad1_ensemble > 0.65 - 0.02",
            "BIM/{row}/grad2_ensemble > 0.89 - 0.02",
        ],
    ),
    Claim(
        "bim_gain_37_points",
        _MNIST,
        "Under BIM ensembles gain roughly 37 points, or more, over single networks.",
        ("mnist",),
        ["BIM/{row}/{ensemble} > BIM/{row}/grad1_single + 0.37 - 0.02"],
    ),
    Claim(
        "bagging_better_attacked",
        _MNIST_CIFAR10,
        "Under every attack Bagging keeps more than Rand. Ini. and Mix. Mod.",
        _ALL,
        ["{attack}/bagging/{ensemble} > {attack}/{plain}/{ensemble}"],
    ),
    Claim(
        "bagging_slightly_worse_clean",
        _MNIST,
        "Without attack Bagging is slightly worse than Rand. Ini. and Mix. Mod.",
        ("mnist",),
        [
            "FGSM/{plain}/no_attack_ensemble > FGSM/bagging/no_attack_ensemble",
            "FGSM/bagging/no_attack_ensemble > FGSM/{plain}/no_attack_ensemble - 0.01",
        ],
    ),
    Claim(
        "noise_best_attacked",
        _MNIST_CIFAR10,
        "Under every attack the Gauss Noise ensemble keeps the most.",
        _ALL,
        ["{attack}/gauss_noise/{ensemble} > {attack}/{noiseless}/{ensemble}"],
    ),
    Claim(
        "noise_worst_clean",
        _MNIST_CIFAR10,
        "Without attack the Gauss Noise ensemble is the least accurate ensemble.",
        _ALL,
        ["FGSM/{noiseless}/no_attack_ensemble > FGSM/gauss_noise/no_attack_ensemble"],
    ),
    Claim(
        "noise_ensemble_beats_all_singles_clean",
        _MNIST,
        "Without attack Gauss Noise ensembles still beat single networks of any kind.",
        ("mnist",),
        ["FGSM/gauss_noise/no_attack_ensemble > FGSM/{row}/no_attack_single"],
    ),
    Claim(
        "noise_hardens_singles",
        "Section 3 (iv) and Section 4, MNIST",
        "Under attack single networks trained on noise keep more than others.",
        _ALL,
        ["{attack}/gauss_noise/grad1_single > {attack}/{noiseless}/grad1_single"],
    ),
    Claim(
        "clean_level_cifar10",
        _CIFAR10,
        "Without attack roughly 72 to 80 % (single), 77 to 84 % (ensembles) are right.",
        ("cifar10",),
        [
            "0.80 + 0.02 > FGSM/{row}/no_attack_single > 0.72 - 0.02",
            "0.84 + 0.02 > FGSM/{row}/no_attack_ensemble > 0.77 - 0.02",
        ],
    ),
    Claim(
        "fgsm_level_cifar10",
        _CIFAR10,
        "FGSM leaves single networks roughly 16 to 30 %, ensembles 43 to 61 % (Grad. "
        "1) and 31 to 47 % (Grad. 2).",
        ("cifar10",),
        [
            "0.30 + 0.02 > FGSM/{row}/grad1_single > 0.16 - 0.02",
            "0.61 + 0.02 > FGSM/{row}/grad1_ensemble > 0.43 - 0.02",
            "0.47 + 0.02 > FGSM/{row}/grad2_ensemble > 0.31 - 0.02",
        ],
    ),
    Claim(
        "bim_level_cifar10",
        _CIFAR10,
        "BIM leaves single networks roughly 11 to 31 %, ensembles 52 to 67 % (Grad. "
        "1) and 68 to 73 % (Grad. 2).",
        ("cifar10",),
        [
            "0.31 + 0.02 > BIM/{row}/grad1_single > 0.11 - 0.02",
            "0.67 + 0.02 > BIM/{row}/grad1_ensemble > 0.52 - 0.02",
            "0.73 + 0.02 > BIM/{row}/grad2_ensemble > 0.68 - 0.02",
        ],
    ),
    # Table 4.
    Claim(
        "bagging_beats_defenses_clean",
        _OTHERS,
        "Without attack Bagging is more accurate than either other defence alone.",
        _ALL,
        ["none/bagging/no_attack > none/{defense}/no_attack"],
    ),
    Claim(
        "bagging_beats_defenses_attacked",
        _OTHERS,
        "Under attack Bagging keeps more than either other defence alone.",
        _ALL,
        [
            "FGSM/bagging/fgsm > FGSM/{defense}/fgsm",
            "BIM/bagging/bim > BIM/{defense}/bim",
        ],
    ),
    Claim(
        "bagging_best_clean",
        _OTHERS,
        "Without attack no row of Table 4 is more accurate than Bagging; Bagging + "
        "Adv. Train. may tie with it.",
        _ALL,
        [
            "none/bagging/no_attack > none/{defense}/no_attack",
            "none/bagging/no_attack > none/bagging+def_dist/no_attack",
            "none/bagging/no_attack > none/bagging+adv_train/no_attack - 0.005",
        ],
    ),
    Claim(
        "adv_train_helps_bagging_fgsm",
        _OTHERS,
        "Adversarial training makes Bagging more robust against FGSM.",
        _ALL,
        ["FGSM/bagging+adv_train/fgsm > FGSM/bagging/fgsm"],
    ),
    Claim(
        "bagging_adv_train_best_attacked",
        "Table 4",
        "Under attack Bagging + Adv. Train. keeps the most on MNIST.",
        ("mnist",),
        [
            "FGSM/bagging+adv_train/fgsm > FGSM/bagging/fgsm",
            "FGSM/bagging+adv_train/fgsm > FGSM/{defense}/fgsm",
            "FGSM/bagging+adv_train/fgsm > FGSM/bagging+def_dist/fgsm",
            "BIM/bagging+adv_train/bim > BIM/bagging/bim",
            "BIM/bagging+adv_train/bim > BIM/{defense}/bim",
            "BIM/bagging+adv_train/bim > BIM/bagging+def_dist/bim",
        ],
    ),
    Claim(
        "bagging_best_bim_cifar10",
        "Table 4",
        "Under BIM Bagging alone keeps the most on CIFAR-10.",
        ("cifar10",),
        [
            "BIM/bagging/bim > BIM/{defense}/bim",
            "BIM/bagging/bim > BIM/bagging+{defense}/bim",
        ],
    ),
    Claim(
        "distillation_does_not_help_bagging",
        _OTHERS,
        "Under attack Bagging keeps less with defensive distillation than without.",
        _ALL,
        [
            "FGSM/bagging/fgsm > FGSM/bagging+def_dist/fgsm",
            "BIM/bagging/bim > BIM/bagging+def_dist/bim",
        ],
    ),
    Claim(
        "bagging_helps_defenses",
        "Section 1",
        "Under attack either other defence keeps more with Bagging than alone.",
        _ALL,
        [
            "FGSM/bagging+{defense}/fgsm > FGSM/{defense}/fgsm",
            "BIM/bagging+{defense}/bim > BIM/{defense}/bim",
        ],
    ),
    Claim(
        "defenses_cost_clean_accuracy",
        "Section 1",
        "Without attack either other defence makes a single network less accurate.",
        _ALL,
        ["FGSM/rand_ini/no_attack_single > none/{defense}/no_attack"],
    ),
)
