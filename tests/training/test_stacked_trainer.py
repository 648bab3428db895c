import dataclasses

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from advens import backend, datasets
from advens.defenses.settings import AdversarialSettings, DistillationSettings
from advens.models.architecture import Architecture
from advens.storage.store import Store
from advens.training import samples
from advens.training.members import fit_members, load_member
from advens.training.recipe import Member, Recipe
from advens.training.state import MemberInTraining, restarts
from advens.training.trainer import Trainer

if keras.backend.backend() != "jax":
    pytest.skip("stacks are for the JAX backend", allow_module_level=True)

from advens.training import stacked_trainer
from advens.training.stacked_trainer import StackedTrainer, epoch_program

DATA = datasets.load("digits").subset(train_images=64, test_images=16)
TINY = Architecture(
    (28, 28, 1), ((3, 2),), (0.2,), 8, "valid", dropout=0.3, logits="linear"
)
# Three steps per epoch, the last one of 16 images.
BASE = Recipe(TINY, epochs=2, batch_size=24, optimizer="adam", learning_rate=0.01)
KINDS = {
    "plain": {},
    "noisy": {"noise_std": 0.2, "bootstrap": True},
    "adversarial": {"adversarial": AdversarialSettings(0.1)},
    "distilled": {"distillation": DistillationSettings(2.0, "papernot")},
}


def make(seed, **changes):
    recipe = dataclasses.replace(BASE, **changes)
    return Member(recipe, seed, DATA.checksums["train"], "jax")


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_a_stack_are_those_of_its_members_and_of_keras(kind):
    recipe = dataclasses.replace(BASE, **KINDS[kind])
    trainer, plain = StackedTrainer(recipe), StackedTrainer(recipe)
    rng, losses, running = np.random.default_rng(1), [], []
    for seed in (1, 2):
        x, y = DATA.x_train, DATA.y_train
        if recipe.noise_std:
            x = x + samples.gaussian_noise(seed, x.shape, noise_std=0.2)
        if recipe.distillation:
            y = rng.dirichlet(np.ones(10), 64).astype("float32")
        state = trainer.start(seed)
        training = MemberInTraining(make(seed, **KINDS[kind]), x, y, state)
        running.append(training)
        # By Keras alone, step by step.
        for name, variable in plain.variables.items():
            variable.assign(state[name])
        rows = training.rows(0)
        losses_of_member = []
        for start in range(0, 64, 24):
            batch = rows[start : start + 24]
            losses_of_member.append(plain.model.train_on_batch(x[batch], y[batch]))
            plain.model.reset_metrics()
        losses.append(losses_of_member)
    program = epoch_program(trainer)
    own_x, own_y = recipe.noise_std > 0, recipe.distillation is not None

    def epoch(members):
        values = [
            np.stack([training.state[name] for training in members])
            for name in trainer.variables
        ]
        images = [training.x for training in members]
        labels = [training.y for training in members]
        return program(
            values,
            np.stack(images) if own_x else images[0],
            np.stack(labels) if own_y else labels[0],
            np.stack([training.rows(0) for training in members]).astype("int32"),
            own_x=own_x,
            own_y=own_y,
            batch_size=24,
        )

    values, losses_of_stack, alive = epoch(running)
    assert np.asarray(alive).all()
    assert_allclose(losses_of_stack, losses, rtol=1e-4, atol=1e-5)
    for i, training in enumerate(running):
        values_alone, losses_alone, _ = epoch([training])
        assert_allclose(losses_alone[0], losses_of_stack[i], rtol=1e-5, atol=1e-6)
        for a, b in zip(values_alone, values, strict=True):
            assert_allclose(a[0], b[i], rtol=0, atol=1e-4)


@pytest.mark.parametrize("stack", [1, 2, 4])
def test_members_do_not_depend_on_the_stack(stack, tmp_path):
    # The first is already at its second epoch, the third is shorter than the others.
    members = [make(1), make(2, bootstrap=True), make(3, epochs=1), make(4)]
    store, alone = Store(tmp_path / "stacked"), Store(tmp_path / "alone")

    class InterruptedStore(Store):
        def save_checkpoint(self, kind, spec, step, arrays):
            super().save_checkpoint(kind, spec, step, arrays)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_members(members[:1], DATA, InterruptedStore(store.root))
    fit_members(members, DATA, store, stack=stack)
    fit_members(members, DATA, alone, stack=1)
    for member in members:
        for a, b in zip(
            load_member(member, store), load_member(member, alone), strict=True
        ):
            assert_allclose(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["noisy", "distilled"])
def test_each_member_of_a_stack_has_its_own_images_and_labels(kind, tmp_path):
    members = [make(seed, **KINDS[kind], epochs=1) for seed in (1, 2)]
    store, alone = Store(tmp_path / "stacked"), Store(tmp_path / "alone")
    fit_members(members, DATA, store, stack=2)
    fit_members(members, DATA, alone, stack=1)
    for member in members:
        for a, b in zip(
            load_member(member, store), load_member(member, alone), strict=True
        ):
            assert_allclose(a, b, rtol=0, atol=1e-4)


def test_a_dead_member_starts_again_and_the_others_go_on(tmp_path, monkeypatch):
    start = Trainer.start
    relu = dataclasses.replace(TINY, logits="relu")
    members = [make(seed, architecture=relu) for seed in (1, 2, 3)]

    def start_second_dead(self, seed):
        state = start(self, seed)
        if seed == 2:
            self.weights(state)[-1][:] = -1e3
        return state

    monkeypatch.setattr(Trainer, "start", start_second_dead)
    store = Store(tmp_path)
    fit_members(members, DATA, store, stack=3)
    assert [restarts(member, store) for member in members] == [0, 1, 0]


def test_by_default_a_stack_is_as_large_as_fits(monkeypatch):
    trainer = StackedTrainer(BASE)
    plain = MemberInTraining(make(1), DATA.x_train, DATA.y_train, trainer.start(1))
    noisy = dataclasses.replace(plain, member=make(1, **KINDS["noisy"]))
    adversarial = dataclasses.replace(plain, member=make(1, **KINDS["adversarial"]))
    assert trainer.default_stack(plain) == 1
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    # How much memory a CPU has is not known.
    assert trainer.default_stack(plain) == 1
    monkeypatch.setattr(stacked_trainer, "_device_bytes", lambda: 2**30)
    sizes = [trainer.default_stack(member) for member in (plain, noisy, adversarial)]
    assert sizes[0] > max(sizes[1:])
    assert min(sizes) > 1
    monkeypatch.setattr(stacked_trainer, "_device_bytes", lambda: 2**31)
    assert trainer.default_stack(plain) in (2 * sizes[0], 2 * sizes[0] + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stack": 0}, "`stack` must be an integer >= 1. Received: stack=0"),
        ({"stack": 2, "n_jobs": 2}, "Received: stack=2, n_jobs=2"),
    ],
)
def test_unsuitable_stacks(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit_members([make(1)], DATA, Store(tmp_path), **options)
