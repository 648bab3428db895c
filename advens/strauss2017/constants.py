"""The numbers of the paper: Strauss et al. 2017, arXiv:1709.03423. No logic.

`digits` is not in the paper: it stands in for MNIST where nothing can be downloaded. It
has MNIST's settings but for its epochs and attack budgets.
"""

from typing import Final

# Section 4, first paragraph.
NUM_MEMBERS: Final = 10

# Section 4, "MNIST" and "CIFAR-10".
EPOCHS: Final = {"digits": 6, "mnist": 10, "cifar10": 25}

# Section 4: training and test images. Those of `digits`: see `advens.datasets`.
NUM_IMAGES: Final = {
    "digits": (1437, 360),
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
}

# Not stated ("small"); docs/protocol.md, point 8.
NOISE_STD: Final = {"digits": 0.3, "mnist": 0.3, "cifar10": 0.1}

# Section 4, second paragraph: eps, step size (alpha) and number of steps (n). `digits`
# has half of MNIST's budgets, under which nothing would stay right there.
ATTACKS: Final = {
    "digits": {
        "FGSM": {"eps": 0.15, "step_size": 0.15, "num_steps": 1},
        "BIM": {"eps": 0.1, "step_size": 0.0125, "num_steps": 8},
    },
    "mnist": {
        "FGSM": {"eps": 0.3, "step_size": 0.3, "num_steps": 1},
        "BIM": {"eps": 0.2, "step_size": 0.025, "num_steps": 8},
    },
    "cifar10": {
        "FGSM": {"eps": 0.03, "step_size": 0.03, "num_steps": 1},
        "BIM": {"eps": 0.02, "step_size": 0.0025, "num_steps": 8},
    },
}

# Section 4, "Comparison with other methods".
RHO: Final = 0.5
TEMPERATURE: Final = 10.0

# Table 2: (attack, row) -> accuracies from left to right, see `columns.TABLE2`.
TABLE2: Final = {
    "mnist": {
        ("FGSM", "rand_ini"): (0.9912, 0.9942, 0.3791, 0.6100, 0.4517),
        ("FGSM", "mix_mod"): (0.9918, 0.9942, 0.3522, 0.5681, 0.4609),
        ("FGSM", "bagging"): (0.9900, 0.9927, 0.4045, 0.6738, 0.5716),
        ("FGSM", "gauss_noise"): (0.9898, 0.9920, 0.5587, 0.7816, 0.7043),
        ("BIM", "rand_ini"): (0.9912, 0.9942, 0.0906, 0.6518, 0.8875),
        ("BIM", "mix_mod"): (0.9918, 0.9942, 0.0582, 0.6656, 0.9076),
        ("BIM", "bagging"): (0.9900, 0.9927, 0.1110, 0.7068, 0.9233),
        ("BIM", "gauss_noise"): (0.9898, 0.9920, 0.5429, 0.9152, 0.9768),
    },
    "cifar10": {
        ("FGSM", "rand_ini"): (0.7984, 0.8448, 0.1778, 0.4538, 0.3302),
        ("FGSM", "mix_mod"): (0.7898, 0.8400, 0.1643, 0.4339, 0.3140),
        ("FGSM", "bagging"): (0.7815, 0.8415, 0.1822, 0.4788, 0.3571),
        ("FGSM", "gauss_noise"): (0.7160, 0.7687, 0.2966, 0.6097, 0.4707),
        ("BIM", "rand_ini"): (0.7984, 0.8448, 0.1192, 0.5232, 0.6826),
        ("BIM", "mix_mod"): (0.7898, 0.8400, 0.1139, 0.5259, 0.6768),
        ("BIM", "bagging"): (0.7815, 0.8415, 0.1280, 0.5615, 0.7166),
        ("BIM", "gauss_noise"): (0.7160, 0.7687, 0.3076, 0.6735, 0.7277),
    },
}

# Table 4: row -> accuracies from left to right, see `columns.TABLE4`.
TABLE4: Final = {
    "mnist": {
        "bagging": (0.9927, 0.5716, 0.9233),
        "adv_train": (0.9902, 0.3586, 0.5420),
        "def_dist": (0.9840, 0.0798, 0.3829),
        "bagging+adv_train": (0.9927, 0.8703, 0.9840),
        "bagging+def_dist": (0.9875, 0.0954, 0.4514),
    },
    "cifar10": {
        "bagging": (0.8415, 0.3571, 0.7166),
        "adv_train": (0.7712, 0.1778, 0.3107),
        "def_dist": (0.7140, 0.1828, 0.3635),
        "bagging+adv_train": (0.8320, 0.5010, 0.7017),
        "bagging+def_dist": (0.7323, 0.1839, 0.4569),
    },
}
