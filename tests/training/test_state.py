import dataclasses

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend, datasets
from advens.models import convnet
from advens.models.architecture import Architecture
from advens.models.fast_layers import HalfWordDropout
from advens.storage.store import Store
from advens.training import samples
from advens.training.members import fit_members, load_member
from advens.training.recipe import Member, Recipe
from advens.training.state import (
    KIND,
    MemberInTraining,
    epochs_done,
    load_checkpoint,
    restarts,
    save_checkpoint,
)

DATA = datasets.load("digits").subset(train_images=64, test_images=16)
TINY = Architecture((28, 28, 1), ((2,),), (0.2,), 8, "valid", logits="linear")
BASE = Recipe(TINY, epochs=3, batch_size=24, optimizer="adam", learning_rate=0.01)


def make(**changes):
    recipe = dataclasses.replace(BASE, **changes)
    return Member(recipe, 1, DATA.checksums["train"], backend.name())


def in_training(member, state, **options):
    return MemberInTraining(member, DATA.x_train, DATA.y_train, state, **options)


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_checkpoints_tell_attempt_and_epoch(tmp_path, epochs):
    store, member = Store(tmp_path), make(epochs=epochs)
    assert load_checkpoint(member, store) is None
    assert epochs_done(member, store) == 0
    number = 0
    for attempt in range(20):
        for epoch in range(1, epochs + 1):
            number += 1
            state = {"variable_000": np.array(number), "variable_001": np.arange(3.0)}
            training = in_training(member, state, attempt=attempt, epoch=epoch)
            save_checkpoint(training, store)
            # Each is newer than all before it.
            loaded, *progress = load_checkpoint(member, store)
            assert progress == [attempt, epoch]
            assert loaded.keys() == state.keys()
            for name, array in state.items():
                assert_array_equal(loaded[name], array)
            assert epochs_done(member, store) == epoch
    store.save(KIND, member.spec, {"weight_000": np.zeros(2)})
    assert epochs_done(member, store) == epochs


def test_saving_does_not_change_the_state(tmp_path):
    state = {"variable_000": np.zeros(2)}
    save_checkpoint(in_training(make(), state, epoch=1), Store(tmp_path))
    assert list(state) == ["variable_000"]


def test_a_member_runs_until_it_is_done_or_dead():
    training = in_training(make(), {})
    assert training.is_running
    training.epoch = 2
    assert training.is_running
    training.alive = False
    assert not training.is_running
    training.alive, training.epoch = True, 3
    assert not training.is_running


@pytest.mark.parametrize("bootstrap", [False, True])
def test_rows_are_those_of_the_member_and_the_epoch(bootstrap):
    training = in_training(make(bootstrap=bootstrap), {})
    for epoch in (0, 2):
        assert_array_equal(
            training.rows(epoch),
            samples.epoch_rows(1, epoch, 64, bootstrap=bootstrap),
        )


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_checkpoint_of_the_first_version_is_resumed(tmp_path, attempt):
    """Train by Keras alone, and write the state after an epoch array by array."""
    member, store = make(), Store(tmp_path)
    options = {} if backend.use_xla() else {"dropout": HalfWordDropout}
    seed = samples.weights_seed(1, attempt=attempt)
    network = convnet.build(TINY, seed=seed, **options)
    model = keras.Sequential([keras.Input((28, 28, 1)), *network.layers[:-1]])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=backend.use_xla())
    for epoch in range(3):
        rows = samples.epoch_rows(1, epoch, 64)
        x, y = DATA.x_train[rows], DATA.y_train[rows]
        model.fit(x, y, batch_size=24, shuffle=False, verbose=0)
        if epoch == 0:
            variables = [*network.variables, *model.optimizer.variables]
            arrays = {
                f"variable_{i:03d}": keras.ops.convert_to_numpy(variable).copy()
                for i, variable in enumerate(variables)
            }
            arrays["attempt"] = np.array(attempt)
            # The step counts the epochs of all attempts.
            step = 3 * attempt + 1
            store.save_checkpoint("member", member.spec, step, arrays)
    assert epochs_done(member, store) == 1
    fit_members([member], DATA, store)
    assert restarts(member, store) == attempt
    for a, b in zip(load_member(member, store), network.get_weights(), strict=True):
        assert_allclose(a, b, rtol=0, atol=1e-4)
