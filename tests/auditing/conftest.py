"""Ensembles of linear classifiers of digits, and what masks their gradients."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.datasets import load_digits

from advens.models.ensemble import Ensemble


class Rounding(layers.Layer):
    """Rounds pixels to multiples of 1/4, which has no gradient."""

    def call(self, inputs):
        return ops.round(4 * inputs) / 4


class RandomShift(layers.Layer):
    """Shifts all images by up to a pixel, anew in each call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, inputs):
        shift = keras.random.randint((2,), -1, 2, seed=self.seed)
        return ops.roll(ops.roll(inputs, shift[0], axis=1), shift[1], axis=2)


@pytest.fixture(scope="session")
def digits():
    """Return images `(1797, 8, 8, 1)` float32 in [0, 1], and labels."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).reshape(-1, 8, 8, 1).astype("float32"), y.astype("int32")


def linear_member(digits, seed, *first, scale=10.0):
    """Return a softmax of the least squares fit to a third of the images."""
    x, y = digits
    rows = np.random.default_rng(seed).choice(len(x), 600)
    flat = np.c_[x[rows].reshape(600, -1), np.ones(600)]
    weights, *_ = np.linalg.lstsq(flat, np.eye(10)[y[rows]], rcond=0.01)
    model = keras.Sequential([keras.Input((8, 8, 1)), *first, layers.Flatten()])
    model.add(layers.Dense(10, activation="softmax"))
    model.layers[-1].set_weights([scale * weights[:-1], scale * weights[-1]])
    return model


@pytest.fixture
def plain(digits):
    """Return three linear members."""
    return Ensemble([linear_member(digits, seed) for seed in range(3)])
