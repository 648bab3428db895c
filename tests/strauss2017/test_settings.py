import dataclasses

import numpy as np
import pytest

from advens.attacks.threat import Attack
from advens.datasets import Dataset
from advens.models import convnet
from advens.strauss2017 import constants, rows
from advens.strauss2017.settings import Settings, paper_attacks, settings_of

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("dataset", "epochs", "eps", "noise_std"),
    [("mnist", 10, 0.3, 0.3), ("cifar10", 25, 0.03, 0.1)],
)
def test_defaults_are_those_of_the_paper(dataset, epochs, eps, noise_std):
    # Section 4 and docs/protocol.md, points 1, 2, 5, 8, 19 and 21.
    expected = {
        "dataset": dataset,
        "epochs": epochs,
        "batch_size": 64,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "precision": "float32",
        "noise_std": noise_std,
        "logits": "relu",
        "adv_eps": eps,
        "rho": 0.5,
        "temperature": 10.0,
        "distillation": "printed",
    }
    settings = dataclasses.asdict(Settings.for_dataset(dataset))
    assert settings.items() >= expected.items()


def test_none_stands_for_the_papers_value_and_zero_for_itself():
    changes = {"epochs": 1, "noise_std": 0.0, "adv_eps": 0.0, "rho": None}
    settings = Settings.for_dataset("mnist", **changes)
    assert settings == dataclasses.replace(
        Settings.for_dataset("mnist"), epochs=1, noise_std=0.0, adv_eps=0.0
    )


# The defences report `adv_eps` and `distillation` under their own names.
@pytest.mark.parametrize(
    ("field", "reported_as", "values"),
    [
        ("dataset", "dataset", ["svhn", "MNIST"]),
        ("epochs", "epochs", [0, -1]),
        ("batch_size", "batch_size", [0, -64]),
        ("learning_rate", "learning_rate", [0.0, -0.001, NAN, INFINITE]),
        ("noise_std", "noise_std", [-0.1, NAN, INFINITE]),
        ("precision", "precision", ["float16", "bfloat16"]),
        ("logits", "logits", ["softmax"]),
        ("adv_eps", "eps", [-0.1, NAN, INFINITE]),
        ("rho", "rho", [-0.1, 1.1, NAN]),
        ("temperature", "temperature", [0.0, -1.0, NAN, INFINITE]),
        ("distillation", "formula", ["Papernot"]),
    ],
)
def test_values_out_of_range(field, reported_as, values):
    for value in values:
        for make in (Settings.for_dataset, replaced):
            with pytest.raises(ValueError, match=f"`{reported_as}` must be") as error:
                make(**{"dataset": "mnist", field: value})
            assert str(error.value).endswith(f"Received: {reported_as}={value!r}")


def replaced(**changes):
    return dataclasses.replace(Settings.for_dataset("mnist"), **changes)


def test_paper_attacks():
    assert paper_attacks("cifar10", box=True, bim_num_steps=3) == [
        Attack("FGSM", eps=0.03, step_size=0.03, num_steps=1, box=True),
        Attack("BIM", eps=0.02, step_size=0.0025, num_steps=3, box=True),
    ]


def test_paper_attacks_with_other_budgets():
    fgsm, bim = paper_attacks("mnist", fgsm_eps=0.1, bim_eps=0.4, bim_step_size=0)
    # FGSM is one step of size eps.
    assert fgsm == Attack("FGSM", eps=0.1, step_size=0.1, num_steps=1)
    assert bim == Attack("BIM", eps=0.4, step_size=0, num_steps=8)


@pytest.mark.parametrize("dataset", constants.ATTACKS)
def test_bim_reaches_the_border_of_the_eps_ball_in_its_last_step(dataset):
    bim = paper_attacks(dataset)[1]
    assert bim.num_steps * bim.step_size == pytest.approx(bim.eps, rel=1e-12)


def dataset_of(shape, name="own", num_classes=10):
    x, y = np.zeros((1, *shape), "float32"), np.zeros(1, int)
    return Dataset(name, x, y, x, y, tuple(map(str, range(num_classes))))


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (dataset_of((28, 28, 1), "digits"), {"dataset": "digits"}),
        (dataset_of((28, 28, 1), "fashion_mnist"), {"dataset": "mnist"}),
        (dataset_of((32, 32, 3)), {"dataset": "cifar10"}),
        (
            dataset_of((40, 24, 1), num_classes=7),
            {"dataset": "mnist", "input_shape": (40, 24, 1), "num_classes": 7},
        ),
        (
            dataset_of((32, 32, 4)),
            {"dataset": "cifar10", "input_shape": (32, 32, 4)},
        ),
    ],
)
def test_settings_of_a_data_set(dataset, expected):
    assert settings_of(dataset) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_the_smallest_images_and_smaller_ones(channels):
    side = 10 if channels == 1 else 8
    shape = (side, side + 3, channels)
    settings = Settings.for_dataset(**settings_of(dataset_of(shape)))
    for index in range(10):
        architecture = rows.recipe("mix_mod", settings, index).architecture
        assert convnet.build(architecture, seed=0).input_shape == (None, *shape)
    with pytest.raises(ValueError, match=f"at least {side} pixels a side"):
        settings_of(dataset_of((side + 3, side - 1, channels)))
