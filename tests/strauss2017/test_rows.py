import dataclasses

import pytest

from advens.defenses.settings import AdversarialSettings, DistillationSettings
from advens.strauss2017 import networks, rows
from advens.strauss2017.settings import Settings
from advens.training.recipe import Recipe

MNIST = Settings.for_dataset("mnist")
# Section 4 and docs/protocol.md, points 1, 2, 8, 19 and 20, for MNIST.
BASE = Recipe(
    networks.TABLE1, epochs=10, batch_size=64, optimizer="adam", learning_rate=0.001
)
CHANGES = {
    "rand_ini": {},
    "bagging": {"bootstrap": True},
    "gauss_noise": {"noise_std": 0.3},
    "adv_train": {"adversarial": AdversarialSettings(eps=0.3, rho=0.5, loss="logits")},
    "def_dist": {
        "distillation": DistillationSettings(temperature=10.0, formula="printed")
    },
}
LABELS = {
    "rand_ini": "Rand. Ini.",
    "mix_mod": "Mix. Mod.",
    "bagging": "Bagging",
    "gauss_noise": "Gauss Noise",
    "adv_train": "Adv. Train.",
    "def_dist": "Def. Dist.",
    "bagging+adv_train": "Bagging + Adv. Train.",
    "bagging+def_dist": "Bagging + Def. Dist.",
}


@pytest.mark.parametrize(
    "row",
    [
        *CHANGES,
        "bagging+adv_train",
        "bagging+def_dist",
        "gauss_noise+adv_train",
        "def_dist+gauss_noise+bagging+adv_train",
    ],
)
def test_a_row_is_the_sum_of_its_parts(row):
    expected = BASE
    for part in row.split("+"):
        expected = dataclasses.replace(expected, **CHANGES[part])
    assert rows.recipe(row, MNIST, 0) == expected
    assert rows.recipe(row, MNIST, 7) == expected
    backwards = "+".join(reversed(row.split("+")))
    assert rows.recipe(backwards, MNIST, 0) == expected


@pytest.mark.parametrize(
    ("row", "noise_std"), [("mix_mod", 0.0), ("gauss_noise+mix_mod", 0.3)]
)
def test_mixed_members_differ_only_in_their_architecture(row, noise_std):
    recipes = [rows.recipe(row, MNIST, index) for index in range(11)]
    blocks = [recipe.architecture.blocks for recipe in recipes]
    assert blocks[0] == blocks[10] == networks.TABLE1.blocks
    assert len(set(blocks)) == 10
    for i in range(11):
        architecture = dataclasses.replace(networks.TABLE1, blocks=blocks[i])
        assert recipes[i] == dataclasses.replace(
            BASE, architecture=architecture, noise_std=noise_std
        )


def test_a_row_takes_what_the_user_changed():
    settings = Settings.for_dataset(
        "cifar10",
        epochs=2,
        batch_size=8,
        optimizer="sgd",
        learning_rate=0.5,
        precision="mixed_bfloat16",
        noise_std=0.25,
        logits="linear",
        adv_eps=0.125,
        rho=0.75,
        temperature=20.0,
        distillation="papernot",
    )
    assert rows.recipe("bagging+gauss_noise+adv_train+def_dist", settings, 0) == Recipe(
        dataclasses.replace(networks.TABLE3, logits="linear"),
        epochs=2,
        batch_size=8,
        optimizer="sgd",
        learning_rate=0.5,
        precision="mixed_bfloat16",
        bootstrap=True,
        noise_std=0.25,
        adversarial=AdversarialSettings(0.125, 0.75, loss="logits"),
        distillation=DistillationSettings(20.0, "papernot"),
    )
    assert rows.recipe("mix_mod", settings, 0).architecture.logits == "linear"


@pytest.mark.parametrize(
    "row",
    [
        *("bagging+boosting", "Bagging", "bagging +adv_train", "bagging+", ""),
        "bagging+adv_train+bagging",
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        rows.parts,
        rows.label,
        rows.is_ensemble,
        lambda row: rows.recipe(row, MNIST, 0),
    ],
)
def test_unsuitable_rows(function, row):
    with pytest.raises(ValueError, match="A row must be one or more of rand_ini,") as e:
        function(row)
    assert str(e.value).endswith(f"Received: {row!r}")


@pytest.mark.parametrize("row", LABELS)
def test_labels_and_parts(row):
    assert [part.label for part in rows.parts(row)] == LABELS[row].split(" + ")
    assert rows.label(row) == LABELS[row]


def test_a_row_with_an_ensemble_method_is_an_ensemble():
    singles = {row for row in LABELS if not rows.is_ensemble(row)}
    assert singles == {"adv_train", "def_dist"}
    assert not rows.is_ensemble("def_dist+adv_train")
    assert rows.is_ensemble("def_dist+rand_ini")


def test_rows_of_the_paper_in_its_order():
    assert rows.TABLE2_ROWS == ("rand_ini", "mix_mod", "bagging", "gauss_noise")
    assert list(rows.TABLE4_ROWS) == [
        *("bagging", "adv_train", "def_dist"),
        *("bagging+adv_train", "bagging+def_dist"),
    ]
