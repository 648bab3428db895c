import dataclasses

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from advens import datasets, models, pipelines
from advens.adversarial_training import Adversarial
from advens.distillation import Distillation
from advens.recipes import Member, Recipe
from advens.store import Store
from advens.trainer import InTraining, Trainer
from advens.training import fit_members, load_member, restarts

if keras.backend.backend() != "jax":
    pytest.skip("stacks are for the JAX backend", allow_module_level=True)

from advens import stacked

DATA = datasets.load("digits").subset(train_images=64, test_images=16)
TINY = models.Architecture(
    (28, 28, 1), ((3, 2),), (0.2,), 8, "valid", dropout=0.3, logits="linear"
)
# Three steps an epoch, the last one of 16 images.
BASE = Recipe(TINY, epochs=2, batch_size=24, optimizer="adam", learning_rate=0.01)
KINDS = {
    "plain": {},
    "noisy": {"noise_std": 0.2, "bootstrap": True},
    "adversarial": {"adversarial": Adversarial(0.1)},
    "distilled": {"distillation": Distillation(2.0, "papernot")},
}


def make(seed, **changes):
    recipe = dataclasses.replace(BASE, **changes)
    return Member(recipe, seed, DATA.checksums["train"])


def trainer_of(recipe):
    return Trainer(
        recipe.architecture,
        recipe.optimizer,
        recipe.learning_rate,
        recipe.precision,
        recipe.adversarial,
        recipe.distillation,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_a_stack_are_those_of_its_members_and_of_keras(kind):
    recipe = dataclasses.replace(BASE, **KINDS[kind])
    trainer, plain = trainer_of(recipe), trainer_of(recipe)
    rng, losses, running = np.random.default_rng(1), [], []
    for seed in (1, 2):
        x, y = DATA.x_train, DATA.y_train
        if recipe.noise_std:
            x = x + pipelines.gaussian_noise(seed, x.shape, noise_std=0.2)
        if recipe.distillation:
            y = rng.dirichlet(np.ones(10), 64).astype("float32")
        one = InTraining(make(seed, **KINDS[kind]), x, y, trainer.start(seed))
        running.append(one)
        # By Keras alone, step by step.
        for variable, value in zip(plain.variables, one.state.values(), strict=True):
            variable.assign(value)
        rows, found = one.rows(0), []
        for start in range(0, 64, 24):
            batch = rows[start : start + 24]
            found.append(plain.model.train_on_batch(x[batch], y[batch]))
            plain.model.reset_metrics()
        losses.append(found)
    program = trainer.epoch_program
    own = {"own_x": bool(recipe.noise_std), "own_y": bool(recipe.distillation)}

    def epoch(ones):
        columns = zip(*(one.state.values() for one in ones), strict=True)
        xs, ys = ([getattr(one, name) for one in ones] for name in "xy")
        x = np.stack(xs) if own["own_x"] else xs[0]
        y = np.stack(ys) if own["own_y"] else ys[0]
        rows = np.stack([one.rows(0) for one in ones]).astype("int32")
        values = [np.stack(column) for column in columns]
        return program(values, x, y, rows, batch_size=24, **own)

    values, together, alive = epoch(running)
    assert np.asarray(alive).all()
    assert_allclose(together, losses, rtol=1e-4, atol=1e-5)
    for i, one in enumerate(running):
        alone, loss, _ = epoch([one])
        assert_allclose(loss[0], together[i], rtol=1e-5, atol=1e-6)
        for a, b in zip(alone, values, strict=True):
            assert_allclose(a[0], b[i], rtol=0, atol=1e-4)


@pytest.mark.parametrize("stack", [1, 2, 4])
def test_members_do_not_depend_on_the_stack(stack, tmp_path):
    # One of them is at its second epoch already, one is shorter.
    members = [make(1), make(2, bootstrap=True), make(3, epochs=1), make(4)]
    store, alone = Store(tmp_path / "stacked"), Store(tmp_path / "alone")

    class Stop(Store):
        def save_checkpoint(self, kind, spec, step, arrays):
            super().save_checkpoint(kind, spec, step, arrays)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_members(members[:1], DATA, Stop(store.root))
    fit_members(members, DATA, store, stack=stack)
    for member in members:
        fit_members([member], DATA, alone)
        for a, b in zip(
            load_member(member, store), load_member(member, alone), strict=True
        ):
            assert_allclose(a, b, rtol=0, atol=1e-4)


def test_a_dead_member_starts_again_and_the_others_go_on(tmp_path, monkeypatch):
    start = Trainer.start
    relu = dataclasses.replace(TINY, logits="relu")
    members = [make(seed, architecture=relu) for seed in (1, 2, 3)]

    def killed(self, seed):
        state = start(self, seed)
        if seed == 2:
            self.weights(state)[-1][:] = -1e3
        return state

    monkeypatch.setattr(Trainer, "start", killed)
    store = Store(tmp_path)
    fit_members(members, DATA, store, stack=3)
    assert [restarts(member, store) for member in members] == [0, 1, 0]


def test_the_default_is_what_fits(monkeypatch):
    trainer = trainer_of(BASE)
    one = InTraining(make(1), DATA.x_train, DATA.y_train, trainer.start(1))
    noisy = dataclasses.replace(one, member=make(1, noise_std=0.2))
    monkeypatch.setattr(stacked, "on_gpu", lambda: False)
    assert stacked.default_size(trainer, one) == 1
    monkeypatch.setattr(stacked, "on_gpu", lambda: True)
    monkeypatch.setattr(stacked, "_memory", lambda: 2**30)
    soft = dataclasses.replace(one, member=make(1, adversarial=Adversarial(0.1)))
    many, *fewer = (stacked.default_size(trainer, each) for each in (one, noisy, soft))
    assert many > max(fewer)
    assert min(fewer) > 1
    # The CPU's is not known.
    monkeypatch.undo()
    monkeypatch.setattr(stacked, "on_gpu", lambda: True)
    assert stacked.default_size(trainer, one) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stack": 0}, "`stack` must be >= 1. Received: stack=0"),
        ({"stack": 2, "n_jobs": 2}, "Received: stack=2, n_jobs=2"),
        ({"n_jobs": 0}, "`n_jobs` must be >= 1. Received: n_jobs=0"),
    ],
)
def test_errors(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit_members([make(1)], DATA, Store(tmp_path), **options)
