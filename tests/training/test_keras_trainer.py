import dataclasses

import keras
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend, datasets
from advens.defenses.settings import AdversarialSettings, DistillationSettings
from advens.models.architecture import Architecture
from advens.models.fast_layers import QuickConv2D
from advens.storage.store import Store
from advens.training import keras_trainer
from advens.training.keras_trainer import KerasTrainer
from advens.training.members import fit_members, load_member
from advens.training.optimizers import FusedAdam
from advens.training.recipe import Member, Recipe
from advens.training.state import MemberInTraining

if backend.use_xla():
    pytest.skip("for TensorFlow on a CPU", allow_module_level=True)

DATA = datasets.load("digits").subset(train_images=64, test_images=16)
TINY = Architecture((28, 28, 1), ((2,),), (0.2,), 8, "valid", logits="linear")
# Three steps per epoch, the last one of 16 images.
BASE = Recipe(TINY, epochs=3, batch_size=24, optimizer="adam", learning_rate=0.01)
ADVERSARIAL = {"adversarial": AdversarialSettings(0.1)}
KINDS = {
    "bagged": {"bootstrap": True},
    "adversarial": ADVERSARIAL,
    "distilled": {"noise_std": 0.2, "distillation": DistillationSettings(2.0)},
}


def make(**changes):
    recipe = dataclasses.replace(BASE, **changes)
    return Member(recipe, 1, DATA.checksums["train"], "tensorflow")


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_steps_per_call_changes_nothing(kind, tmp_path, monkeypatch):
    member = make(**KINDS[kind])
    weights = []
    for steps in (8, 1, 2):
        monkeypatch.setattr(keras_trainer, "_STEPS_PER_CALL", steps)
        store = Store(tmp_path / str(steps))
        fit_members([member], DATA, store)
        weights.append(load_member(member, store))
    for arrays in zip(*weights, strict=True):
        for array in arrays[1:]:
            assert_array_equal(array, arrays[0])


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_fused_adam_trains_as_keras_adam_does(precision):
    recipe = dataclasses.replace(BASE, precision=precision)
    fused, plain = KerasTrainer(recipe), KerasTrainer(recipe)
    adam = optimizer = keras.optimizers.Adam(0.01)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(adam)
    plain.model.compile(optimizer, plain.model.loss, jit_compile=False)
    fused_adam = fused.model.optimizer
    assert isinstance(getattr(fused_adam, "inner_optimizer", fused_adam), FusedAdam)
    assert not isinstance(adam, FusedAdam)
    for _ in range(5):
        for trainer in (fused, plain):
            trainer.model.train_on_batch(DATA.x_train, DATA.y_train)
    # Where weights differ by rounding, float16 may round them apart.
    is_half = precision == "mixed_float16"
    rtol, atol = (1e-2, 1e-5) if is_half else (1e-4, 1e-6)
    for a, b in zip(
        fused.model.optimizer.variables, plain.model.optimizer.variables, strict=True
    ):
        assert_allclose(a, b, rtol=rtol, atol=atol)
    for a, b in zip(
        fused.network.get_weights(), plain.network.get_weights(), strict=True
    ):
        assert_allclose(a, b, rtol=0, atol=1e-3 if is_half else 1e-5)


@pytest.mark.parametrize("changes", [{}, ADVERSARIAL])
def test_without_onednn_members_train_alike(changes, monkeypatch):
    network = dataclasses.replace(TINY, blocks=((2, 3),))
    member = make(architecture=network, **changes)
    weights = []
    for uses_onednn in (True, False):
        monkeypatch.setattr(backend, "uses_onednn", lambda used=uses_onednn: used)
        trainer = KerasTrainer(member.recipe)
        for layer in trainer.network.layers[:2]:
            assert isinstance(layer, keras.layers.Conv2D)
            assert isinstance(layer, QuickConv2D) != uses_onednn
        state = trainer.start(1)
        training = MemberInTraining(member, DATA.x_train, DATA.y_train, state)
        trainer.fit([training], lambda training: None)
        assert training.epoch == 3
        weights.append(trainer.weights(training.state))
    for a, b in zip(*weights, strict=True):
        assert_allclose(a, b, rtol=0, atol=1e-4)


def test_a_finished_member_is_left_alone():
    trainer = KerasTrainer(BASE)
    state = trainer.start(1)
    training = MemberInTraining(
        make(), DATA.x_train, DATA.y_train, state, epoch=BASE.epochs
    )
    trainer.fit([training], lambda training: pytest.fail("an epoch was trained"))
    assert training.state is state
    assert trainer.default_stack(training) == 1
