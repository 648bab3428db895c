import keras
import numpy as np
import pytest
from keras import layers

from advens.models import own_network
from advens.models.own_network import build

SHAPE, NUM_CLASSES = (6, 5, 1), 3
NETWORKS = """
import itertools

import keras
from keras import layers

numbers = itertools.count(4)


def double(x):
    return 2 * x


class Mine(layers.Layer):
    def call(self, x):
        return 2 * x


def net(shape, *body, units=3, **last):
    last = layers.Dense(units, **last)
    return keras.Sequential([keras.Input(shape), layers.Flatten(), *body, last])


def plain(shape, num_classes):
    body = layers.Dense(8, "relu"), layers.Dropout(0.5, seed=1)
    return net(shape, *body, units=num_classes, activation="softmax")


def same(shape, num_classes):
    model = plain(shape, num_classes)
    model.compile("adam", "mse")
    return model


edited = lambda s, n: net(s, layers.Dense(9, "relu"), activation="softmax")
changing = lambda s, n: net(s, layers.Dense(next(numbers)))
custom = lambda s, n: net(s, Mine())
code = lambda s, n: net(s, layers.Lambda(double))
function = lambda s, n: net(s, layers.Dense(4, double))
half = lambda s, n: net(s, dtype="mixed_bfloat16")
frozen = lambda s, n: net(s, layers.Dense(4, trainable=False))
relu = lambda s, n: net(s, activation="relu")
four = lambda s, n: net(s, units=4)
small = lambda s, n: net((2, 2, 1))
nothing = lambda s, n: None
unbuilt = lambda s, n: keras.Sequential([layers.Dense(n)])
fails = lambda s, n: {}["lost"]
"""


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Return a function that reads a network from a module in the directory."""
    (tmp_path / "nets_of_test.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def read(path):
        return own_network.own_network(f"nets_of_test:{path}", SHAPE, NUM_CLASSES)

    return read


def test_equal_networks_have_equal_architectures(network):
    plain = network("plain")
    assert plain.name == "nets_of_test:plain"
    layers.Dense(3)  # which moves Keras's count of layers on
    assert network("plain") == plain
    assert network("same").architecture == plain.architecture
    assert network("edited").architecture != plain.architecture


def test_a_seed_determines_the_weights_and_the_dropout(network):
    architecture = network("plain").architecture
    first, again, other = (build(architecture, seed=seed) for seed in (1, 1, 2))
    assert first.output_shape == (None, NUM_CLASSES)
    x = np.ones((4, *SHAPE), "float32")
    outputs = [np.array(model(x, training=True)) for model in (first, again, other)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    for a, b in zip(first.get_weights(), other.get_weights(), strict=True):
        assert a.ndim == 1 or not np.isclose(a, b).any()
    other.set_weights(first.get_weights())
    assert np.abs(np.array(other(x, training=True)) - outputs[0]).max() > 1e-3
    kernels = [w for w in first.get_weights() if w.ndim == 2]
    assert keras.ops.std(kernels[0]) > 0.1


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("absent", "must be module:function.* no attribute 'absent'"),
        ("changing", "the same network at each call"),
        ("custom", "one with Mine, which is not Keras's own"),
        ("code", "one with double, which is not Keras's own"),
        ("function", "one with double, which is not Keras's own"),
        ("half", "one that computes in mixed_bfloat16, not float32"),
        ("frozen", "one whose layer 'dense' is not trainable"),
        ("relu", "neither in a softmax nor in logits"),
        ("four", r"to \(None, 4\), where .* to \(None, 3\) is needed"),
        ("small", r"from \(None, 2, 2, 1\) to .* where \(None, 6, 5, 1\)"),
        ("nothing", "None, no built Sequential or functional model"),
        ("unbuilt", "no built Sequential or functional model"),
        ("fails", "one that fails .KeyError: 'lost'"),
    ],
)
def test_what_is_no_such_network(network, function, error):
    with pytest.raises(ValueError, match=error):
        network(function)
