import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose

from advens.models.ensemble import Ensemble
from advens.models.logits import is_functional, logits_model

X = np.random.default_rng(1).uniform(size=(5, 2, 2, 1)).astype("float32")


class Subclassed(keras.Model):
    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(3, activation=activation)

    def call(self, inputs):
        return self.dense(self.flatten(inputs))


def subclassed(activation=None):
    model = Subclassed(activation)
    model(X)
    return model


def sequential(*tail):
    return keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), *tail])


def functional(*tail):
    x = inputs = keras.Input((2, 2, 1))
    for layer in (layers.Flatten(), *tail):
        x = layer(x)
    return keras.Model(inputs, x)


def nested(inner, *tail, build=sequential):
    model = build(layers.Reshape((2, 2, 1)), inner, *tail)
    return build(layers.Reshape((2, 2, 1)), model)


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def dense(activation=None, **options):
    return layers.Dense(3, activation=activation, **options)


# For each ending: what it returns, and the layers after Flatten.
ENDINGS = {
    "softmax": ("probs", lambda: [dense(), layers.Softmax()]),
    "dense softmax": ("probs", lambda: [dense("softmax")]),
    "no bias": ("probs", lambda: [dense("softmax", use_bias=False)]),
    "activation": ("probs", lambda: [dense(), layers.Activation("softmax")]),
    "linear": ("probs", lambda: [dense("softmax"), layers.Activation("linear")]),
    "relu logits": ("probs", lambda: [dense("relu"), layers.Softmax()]),
    "logits": ("logits", lambda: [dense()]),
    "linear logits": ("logits", lambda: [dense(), layers.Activation("linear")]),
}
# Last layers that do not show what the model returns.
UNCLEAR = {
    "relu": lambda: functional(dense("relu")),
    "dropout": lambda: sequential(dense(), layers.Dropout(0.5)),
    "lambda": lambda: functional(dense(), layers.Lambda(ops.softmax)),
    "subclassed": subclassed,
    "nested": lambda: nested(sequential(dense("relu"))),
    "nested subclassed": lambda: nested(subclassed()),
}
UNCLEAR_PROBS = {
    "lambda": lambda: sequential(dense(), layers.Lambda(ops.softmax)),
    "subclassed": lambda: subclassed("softmax"),
    "nested subclassed": lambda: nested(subclassed("softmax")),
}


@pytest.mark.parametrize("build", [sequential, functional])
@pytest.mark.parametrize("depth", ["flat", "nested"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_are_told_apart(build, depth, ending):
    kind, layers_of = ENDINGS[ending]
    flat = build(*layers_of())
    model = nested(flat, build=build) if depth == "nested" else flat
    logits = X.reshape(5, 4) @ flat.get_weights()[0]
    if ending == "relu logits":
        logits = np.maximum(logits, 0)
    answer = softmax(logits) if kind == "probs" else logits
    assert_allclose(model(X), answer, rtol=1e-5, atol=1e-6)
    assert_allclose(logits_model(model)(X), logits, rtol=1e-5, atol=1e-6)
    assert_allclose(Ensemble([model])(X), softmax(logits), rtol=1e-5, atol=1e-6)
    assert_allclose(logits_model(model, kind)(X), logits, rtol=1e-5, atol=1e-6)
    other = {"probs": "logits", "logits": "probs"}[kind]
    with pytest.raises(ValueError, match=f"ends in {kind}, not in {other}"):
        Ensemble([model], outputs=other)


def test_softmax_around_a_nested_model():
    inner = sequential(layers.Dense(3))
    logits = logits_model(nested(inner, layers.Softmax()))(X)
    assert_allclose(logits, inner(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ending", UNCLEAR)
def test_unclear_endings_need_outputs(ending):
    model = UNCLEAR[ending]()
    for make in (logits_model, lambda model: Ensemble([model])):
        with pytest.raises(ValueError, match="Cannot tell whether .* Pass outputs"):
            make(model)
    answer = np.array(model(X))
    got = Ensemble([model], outputs="logits")(X)
    assert_allclose(got, softmax(answer), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ending", UNCLEAR_PROBS)
def test_unclear_probabilities(ending):
    model = UNCLEAR_PROBS[ending]()
    got = ops.softmax(logits_model(model, "probs")(X))
    assert_allclose(got, model(X), rtol=1e-5, atol=1e-6)
    ensemble = Ensemble([model], outputs="probs")
    assert_allclose(ensemble(X), model(X), rtol=1e-5, atol=1e-6)


def test_probabilities_may_be_zero():
    def one_hot(x):
        return ops.one_hot(ops.zeros(ops.shape(x)[:1], "int32"), 3)

    logits = logits_model(sequential(layers.Lambda(one_hot)), "probs")(X)
    assert_allclose(ops.softmax(logits), [[1, 0, 0]] * 5, rtol=0, atol=1e-30)
    assert np.isfinite(logits).all()


def test_an_overridden_call_does_not_show_it():
    class Scaled(keras.Model):
        def call(self, inputs, training=False):
            return super().call(2 * inputs, training=training)

    class Shifted(layers.Dense):
        def call(self, inputs):
            return ops.softmax(super().call(inputs) + np.array([0, 1, 2], "float32"))

    inputs = keras.Input((2, 2, 1))
    scaled = Scaled(inputs, dense("softmax")(layers.Flatten()(inputs)))
    for model in (scaled, sequential(Shifted(3))):
        with pytest.raises(ValueError, match="Cannot tell whether"):
            Ensemble([model])
        got = Ensemble([model], outputs="probs")(X)
        assert_allclose(got, model(X), rtol=1e-5, atol=1e-6)


def test_logits_share_the_weights_of_the_model():
    for tail in ([dense(), layers.Softmax()], [dense("softmax")], [dense()]):
        model = sequential(*tail)
        logits = logits_model(model)
        model.set_weights([np.eye(4, 3), np.array([1, 2, 3])])
        want = X.reshape(5, 4)[:, :3] + [1, 2, 3]
        assert_allclose(logits(X), want, rtol=1e-6)
        assert {id(v) for v in logits.variables} == {id(v) for v in model.variables}


def test_an_unbuilt_model():
    with pytest.raises(ValueError, match="must be built.*'unbuilt'.*call it once"):
        logits_model(keras.Sequential([dense()], name="unbuilt"))


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (lambda: sequential(dense()), True),
        (lambda: functional(dense()), True),
        (lambda: nested(subclassed()), True),
        (subclassed, False),
    ],
)
def test_is_functional(make, want):
    assert is_functional(make()) is want
