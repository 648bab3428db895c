import dataclasses
import subprocess
import sys

import pytest

from advens.defenses.settings import AdversarialSettings, DistillationSettings
from advens.models.architecture import Architecture
from advens.training.recipe import Member, Recipe, teachers, trainer_key

NETWORK = Architecture((28, 28, 1), ((4, 4),), (0.0,), 8, "valid")
BASE = Recipe(NETWORK, epochs=10, batch_size=64, optimizer="adam", learning_rate=0.001)
NAN, INFINITE = float("nan"), float("inf")


@dataclasses.dataclass(frozen=True)
class LaterRecipe(Recipe):
    """A recipe with an option that a later version might add."""

    option: float | None = None


def member(*, seed=1, train="0" * 64, backend="tensorflow", **changes):
    return Member(dataclasses.replace(BASE, **changes), seed, train, backend)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("epochs", [0, -1, 1.5]),
        ("batch_size", [0, -64]),
        ("learning_rate", [0.0, -0.001, NAN, INFINITE]),
        ("noise_std", [-0.1, NAN, INFINITE]),
        ("precision", ["float16", "bfloat16"]),
    ],
)
def test_values_out_of_range(field, values):
    for value in values:
        with pytest.raises(ValueError, match=f"`{field}` must be") as error:
            dataclasses.replace(BASE, **{field: value})
        assert str(error.value).endswith(f"Received: {field}={value!r}")


def test_an_option_that_is_none_does_not_change_the_address():
    fields = {f.name: getattr(BASE, f.name) for f in dataclasses.fields(BASE)}
    without, with_option = (
        Member(LaterRecipe(**fields, option=option), 1, "0" * 64, "tensorflow")
        for option in (None, 0.0)
    )
    assert without.digest == member().digest
    assert with_option.digest != member().digest


def test_the_address_contains_everything_that_determines_the_weights():
    members = [
        member(),
        member(seed=2),
        member(train="1" * 64),
        member(backend="jax"),
        member(architecture=dataclasses.replace(NETWORK, dropout=0.25)),
        member(epochs=9),
        member(batch_size=32),
        member(optimizer="sgd"),
        member(learning_rate=0.01),
        member(precision="mixed_bfloat16"),
        member(bootstrap=True),
        *(member(noise_std=noise_std) for noise_std in (0.1, 0.3)),
        *(
            member(adversarial=AdversarialSettings(*options))
            for options in [(0.3,), (0.2,), (0.3, 1.0), (0.3, 0.5, True)]
        ),
        member(adversarial=AdversarialSettings(0.3, labels="predicted")),
        member(adversarial=AdversarialSettings(0.3, loss="logits")),
        *(
            member(distillation=DistillationSettings(*options))
            for options in [(), (20.0,), (10.0, "papernot")]
        ),
    ]
    assert len({m.digest for m in members}) == len(members)


def test_a_teacher_is_its_student_without_distillation():
    changes = {
        "bootstrap": True,
        "noise_std": 0.1,
        "adversarial": AdversarialSettings(0.3),
    }
    student = member(seed=5, distillation=DistillationSettings(), **changes)
    assert student.teacher == member(seed=5, **changes)
    assert student.teacher.teacher is None
    assert teachers([member(), student, member(seed=2)]) == [student.teacher]


@pytest.mark.parametrize("distillation", [None, DistillationSettings(2.0)])
def test_members_of_the_same_steps_and_kinds_of_arrays_share_a_trainer(distillation):
    def key(**changes):
        recipe = dataclasses.replace(BASE, distillation=distillation, **changes)
        return trainer_key(recipe)

    assert key() == key(epochs=3) == key(bootstrap=True)
    # Every member with noise has its own images, however strong the noise is.
    assert key(noise_std=0.1) == key(noise_std=0.3, epochs=3, bootstrap=True)
    assert key(noise_std=0.1) != key()
    assert trainer_key(key()) == key()


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": dataclasses.replace(NETWORK, units=9)},
        {"batch_size": 32},
        {"optimizer": "sgd"},
        {"learning_rate": 0.01},
        {"precision": "mixed_bfloat16"},
        {"noise_std": 0.1},
        {"adversarial": AdversarialSettings(0.1)},
        {"distillation": DistillationSettings()},
    ],
)
def test_members_of_different_steps_have_different_trainers(changes):
    assert trainer_key(dataclasses.replace(BASE, **changes)) != trainer_key(BASE)


def test_recipes_need_no_keras():
    code = (
        "import sys, advens.training.recipe; "
        "print({'keras', 'tensorflow', 'jax'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "set()"
