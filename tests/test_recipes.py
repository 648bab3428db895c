import dataclasses

import pytest

from advens import models, recipes
from advens.adversarial_training import Adversarial
from advens.distillation import Distillation
from advens.recipes import Member, Recipe, Settings, recipe, teachers

# Section 4 and docs/protocol.md, points 1, 2, 8, 19 and 20, for MNIST.
BASE = Recipe(
    models.TABLE1, epochs=10, batch_size=64, optimizer="adam", learning_rate=0.001
)
CHANGES = {
    "rand_ini": {},
    "bagging": {"bootstrap": True},
    "gauss_noise": {"noise_std": 0.3},
    "adv_train": {"adversarial": Adversarial(eps=0.3, rho=0.5, loss="logits")},
    "def_dist": {"distillation": Distillation(temperature=10.0, formula="printed")},
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


@dataclasses.dataclass(frozen=True)
class LaterRecipe(Recipe):
    """What a later version might add."""

    option: float | None = None


def member(seed=1, train="0" * 64, **changes):
    return Member(dataclasses.replace(BASE, **changes), seed, train)


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
    changes = {k: v for part in row.split("+") for k, v in CHANGES[part].items()}
    want = dataclasses.replace(BASE, **changes)
    assert recipe(row, Settings("mnist"), 0) == want
    assert recipe(row, Settings("mnist"), 7) == want
    backwards = "+".join(reversed(row.split("+")))
    assert recipe(backwards, Settings("mnist"), 0) == want


@pytest.mark.parametrize("row", ["mix_mod", "gauss_noise+mix_mod"])
def test_mixed_members_differ_in_their_architecture_alone(row):
    found = [recipe(row, Settings("mnist"), index) for index in range(11)]
    blocks = [f.architecture.blocks for f in found]
    assert blocks[0] == blocks[10] == models.TABLE1.blocks
    assert len(set(blocks)) == 10
    noise_std = 0.3 if "gauss_noise" in row else 0.0
    for f, b in zip(found, blocks, strict=True):
        architecture = dataclasses.replace(models.TABLE1, blocks=b)
        assert f == dataclasses.replace(
            BASE, architecture=architecture, noise_std=noise_std
        )


def test_a_row_takes_what_the_user_changed():
    settings = Settings(
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
    assert recipe("bagging+gauss_noise+adv_train+def_dist", settings, 0) == Recipe(
        dataclasses.replace(models.TABLE3, logits="linear"),
        epochs=2,
        batch_size=8,
        optimizer="sgd",
        learning_rate=0.5,
        precision="mixed_bfloat16",
        bootstrap=True,
        noise_std=0.25,
        adversarial=Adversarial(0.125, 0.75, loss="logits"),
        distillation=Distillation(20.0, "papernot"),
    )
    assert recipe("mix_mod", settings, 0).architecture.logits == "linear"


@pytest.mark.parametrize(
    ("row", "received"),
    [
        ("bagging+boosting", "'boosting'"),
        ("Bagging", "'Bagging'"),
        ("bagging +adv_train", "'bagging '"),
        ("bagging+", "''"),
        ("", "''"),
        ("bagging+adv_train+bagging", "'bagging+adv_train+bagging'"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        recipes.parts,
        recipes.label,
        recipes.is_ensemble,
        lambda row: recipe(row, Settings("mnist"), 0),
    ],
)
def test_unsuitable_rows(function, row, received):
    with pytest.raises(ValueError, match="`row` must be of") as error:
        function(row)
    assert str(error.value).endswith(f"Received: row={received}")


@pytest.mark.parametrize("row", LABELS)
def test_names_of_rows(row):
    assert recipes.parts(row) == row.split("+")
    assert recipes.label(row) == LABELS[row]
    assert recipes.is_ensemble(row) == (row not in ("adv_train", "def_dist"))
    assert not recipes.is_ensemble("def_dist+adv_train")


@pytest.mark.parametrize(
    ("dataset", "epochs", "eps"), [("mnist", 10, 0.3), ("cifar10", 25, 0.03)]
)
def test_defaults_are_those_of_the_paper(dataset, epochs, eps):
    settings = Settings(dataset)
    assert (settings.epochs, settings.adv_eps) == (epochs, eps)
    assert (settings.rho, settings.temperature) == (0.5, 10.0)
    assert (settings.optimizer, settings.learning_rate) == ("adam", 0.001)
    assert (settings.batch_size, settings.logits) == (64, "relu")
    assert (settings.distillation, settings.precision) == ("printed", "float32")
    assert Settings("mnist").noise_std == 0.3
    given = {"epochs": 1, "noise_std": 0.0, "adv_eps": 0.0}
    assert dataclasses.asdict(Settings(dataset, **given)).items() >= given.items()


NAN, INFINITE = float("nan"), float("inf")


# `adv_eps` and `distillation` are named as the defences name them.
@pytest.mark.parametrize(
    ("field", "named", "values"),
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
def test_values_out_of_range(field, named, values):
    for value in values:
        with pytest.raises(ValueError, match=f"`{named}` must be") as error:
            Settings(**{"dataset": "mnist", field: value})
        assert str(error.value).endswith(f"Received: {named}={value!r}")


def test_an_option_of_none_changes_no_address():
    fields = {f.name: getattr(BASE, f.name) for f in dataclasses.fields(BASE)}
    later = [Member(LaterRecipe(**fields, option=o), 1, "0" * 64) for o in (None, 0.0)]
    assert later[0].digest == member().digest
    assert later[1].digest != member().digest


def test_all_that_determines_the_weights_is_in_the_address(monkeypatch):
    members = [
        member(),
        member(seed=2),
        member(train="1" * 64),
        member(architecture=dataclasses.replace(models.TABLE1, dropout=0.25)),
        member(epochs=9),
        member(batch_size=32),
        member(optimizer="sgd"),
        member(learning_rate=0.01),
        member(precision="mixed_bfloat16"),
        member(bootstrap=True),
        *(member(noise_std=noise_std) for noise_std in (0.1, 0.3)),
        *(
            member(adversarial=Adversarial(*options))
            for options in [(0.3,), (0.2,), (0.3, 1.0), (0.3, 0.5, True)]
        ),
        member(adversarial=Adversarial(0.3, labels="predicted")),
        *(
            member(distillation=Distillation(*options))
            for options in [(), (20.0,), (10.0, "papernot")]
        ),
    ]
    addresses = {m.digest for m in members}
    assert len(addresses) == len(members)
    monkeypatch.setattr("keras.backend.backend", lambda: "another")
    assert addresses.isdisjoint(m.digest for m in members)


def test_a_teacher_is_its_student_without_distillation():
    changes = {"bootstrap": True, "noise_std": 0.1, "adversarial": Adversarial(0.3)}
    student = member(seed=5, distillation=Distillation(), **changes)
    assert student.teacher == member(seed=5, **changes)
    assert student.teacher.teacher is None
    assert teachers([member(), student, member(seed=2)]) == [student.teacher]
