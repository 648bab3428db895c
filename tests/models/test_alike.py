import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose

from advens.models.alike import first_alike, weights
from advens.models.logits import logits_model


def network(
    *, filters=2, activation="relu", padding="same", shift=1.0, dtype="float32", seed=0
):
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(
        filters,
        3,
        padding=padding,
        activation=activation,
        dtype=dtype,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
    )(inputs)
    x = layers.Dropout(0.5, seed=seed)(layers.BatchNormalization()(x))
    x = layers.Flatten()(x + shift)
    return keras.Model(inputs, layers.Dense(3)(x))


def two_branches(*, made_first, called_twice=False, swapped=False):
    """Two convolutions side by side, made in one order or in the other."""
    inputs = keras.Input((6, 6, 1))
    pair = [layers.Conv2D(2, 3), layers.Conv2D(2, 3, activation="tanh")]
    if made_first == "tanh":
        pair = [layers.Conv2D(2, 3, activation="tanh"), layers.Conv2D(2, 3)][::-1]
    linear, tanh = pair
    x = [tanh(inputs), linear(inputs)]
    if called_twice:
        x = [tanh(inputs), tanh(inputs)]
    x = ops.subtract(*(x[::-1] if swapped else x))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def sequential():
    body = [keras.Input((6, 6, 2)), layers.Conv2D(2, 3), layers.Conv2D(2, 3)]
    return keras.Sequential([*body, layers.Flatten(), layers.Dense(3)])


def with_variable():
    inputs = keras.Input((6, 6, 1))
    variable = keras.Variable(np.ones((6, 6, 1)))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs * variable)))


def nested():
    return keras.Sequential([keras.Input((6, 6, 1)), network()])


class Own(layers.Dense):
    pass


def with_own_layer():
    body = [keras.Input((6, 6, 1)), layers.Flatten(), Own(3)]
    return keras.Sequential(body)


def alike(*models):
    return first_alike([logits_model(model, "logits") for model in models])


def test_names_weights_and_seeds_do_not_count():
    models = [network(), network(seed=1), network()]
    models[2].layers[1].kernel.assign(ops.ones((3, 3, 1, 2)))
    assert models[0].layers[1].name != models[1].layers[1].name
    assert alike(*models) == [0, 0, 0]
    # Sequential models of the same layers, too.
    assert alike(sequential(), sequential()) == [0, 0]


@pytest.mark.parametrize(
    ("changes", "other_changes"),
    [
        ({}, {"filters": 3}),
        ({}, {"activation": "tanh"}),
        ({}, {"padding": "valid"}),
        ({}, {"shift": 2.0}),
        ({}, {"shift": np.full((6, 6, 2), 1.0, "float32")}),
        ({}, {"dtype": "mixed_bfloat16"}),
    ],
)
def test_what_is_computed_counts(changes, other_changes):
    models = network(**changes), network(**other_changes)
    assert alike(*models, network(**changes)) == [0, 1, 0]


def test_how_layers_are_connected_counts():
    base = two_branches(made_first="linear")
    assert alike(
        base,
        two_branches(made_first="linear", swapped=True),
        two_branches(made_first="linear", called_twice=True),
        two_branches(made_first="linear"),
    ) == [0, 1, 2, 0]


@pytest.mark.parametrize("build", [nested, with_own_layer, with_variable])
def test_nobody_knows(build):
    assert alike(build(), network(), build()) == [None, 1, None]


def test_weights_come_in_the_same_order():
    models = [two_branches(made_first=first) for first in ("linear", "tanh")]
    assert alike(*models) == [0, 0]
    x = np.random.default_rng(0).random((4, 6, 6, 1), np.float32)
    want = ops.convert_to_numpy(models[1](x))
    values = [ops.convert_to_numpy(v) for v in weights(models[1])]
    with keras.StatelessScope(zip(weights(models[0]), values, strict=True)):
        got = ops.convert_to_numpy(models[0](x))
    assert np.abs(want - ops.convert_to_numpy(models[0](x))).max() > 0.1
    assert_allclose(got, want, rtol=1e-5, atol=1e-6)
