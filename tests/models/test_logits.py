import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose

from advens.models.endings import is_functional
from advens.models.ensemble import Ensemble
from advens.models.logits import logits_model
from advens.models.variants import attacked_model

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


def half_precision_body(*tail):
    keras.utils.set_random_seed(3)
    return sequential(layers.Dense(8, "relu", dtype="mixed_float16"), *tail)


@pytest.mark.parametrize(
    "tail",
    [
        lambda: [dense("softmax", dtype="float32")],
        lambda: [dense(dtype="float32"), layers.Softmax(dtype="float32")],
    ],
)
def test_a_float32_head_on_a_half_precision_body_stays_float32(tail):
    model = half_precision_body(*tail())
    model.layers[2].set_weights([1000 * np.eye(8, 3), np.arange(3)])
    hidden = ops.convert_to_numpy(model.layers[1](X.reshape(5, 4)))
    assert hidden.dtype == np.float16
    # In float16 these would be multiples of 0.5, or inf.
    want = 1000 * hidden.astype("float64")[:, :3] + np.arange(3)
    logits = logits_model(model)(X)
    assert ops.dtype(logits) == "float32"
    assert_allclose(logits, want, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_the_logarithm_of_float16_probabilities_is_finite(kind, units):
    """In float16 the smallest positive probability is 6e-8, and 1 - 1e-4 is 1."""
    rows = [[0.75], [0.0], [1.0], [2**-14]] if units == 1 else [[0.75, 0.25, 0.0]]
    rows = np.array(rows, "float16")

    class Constant(keras.Model):
        def call(self, inputs):
            return ops.convert_to_tensor(rows)

    if kind == "functional":
        layer = layers.Lambda(lambda x: ops.convert_to_tensor(rows), (units,))
        model = sequential(layers.Activation("linear", dtype="float16"), layer)
    else:
        model = Constant(dtype="float16")
        model(X)
    logits = ops.convert_to_numpy(logits_model(model, "probs")(X[: len(rows)]))
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    if units == 1:
        assert_allclose(logits[0], [0, np.log(3)], rtol=1e-6)
        # The smallest normal float32 is 2**-126.
        ends = 126 * np.log(2)
        assert_allclose(logits[1:3], [[0, -ends], [0, ends]], rtol=1e-6)
        assert_allclose(logits[3, 1], np.log(2**-14 / (1 - 2**-14)), rtol=1e-6)
        rows = np.concatenate([1 - rows.astype("float32"), rows], axis=1)
    assert_allclose(ops.softmax(logits), rows, rtol=1e-5, atol=1e-30)


def test_the_logits_of_a_quantized_head():
    model = sequential(layers.Dense(8, "tanh"), dense("softmax"))
    model.quantize("int8")
    logits = logits_model(model)
    assert_allclose(ops.softmax(logits(X)), model(X), rtol=1e-5, atol=1e-6)
    # They are not normalized, as logarithms of the probabilities would be.
    assert np.abs(ops.logsumexp(logits(X), axis=-1)).max() > 0.1


def test_logits_of_logits():
    once = logits_model(sequential(layers.Dense(1, activation="sigmoid")))
    assert_allclose(logits_model(once)(X), once(X))
    two = [layers.Dense(3, activation="softmax"), layers.Lambda(lambda x: x)]
    once = logits_model(sequential(*two), "probs")
    assert_allclose(logits_model(once)(X), once(X))


@pytest.mark.parametrize(
    "tail",
    [
        [dense("softmax"), layers.Rescaling(0.5)],
        [dense("softmax"), layers.Dropout(0.5)],
        [dense("softmax"), layers.Reshape((1, 3)), layers.Flatten()],
        [dense(), layers.Softmax(axis=0)],
        [dense(), layers.Softmax(axis=(0, 1))],
        [dense(), layers.Rescaling(0.1)],
        [dense(), layers.Activation("hard_sigmoid")],
        # A layer that has a linear activation, but computes something.
        [
            dense("softmax"),
            layers.Reshape((3, 1)),
            layers.SimpleRNN(3, activation="linear"),
        ],
    ],
)
def test_what_stands_behind_a_softmax_must_be_known(tail):
    with pytest.raises(ValueError, match="Cannot tell whether"):
        logits_model(sequential(*tail))


def test_a_softmax_with_a_mask_must_be_known():
    x = inputs = keras.Input((2, 2, 1))
    logits = dense()(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Softmax()(logits, mask=logits > 0))
    with pytest.raises(ValueError, match="Cannot tell whether"):
        logits_model(model)


def test_a_temperature_belongs_to_the_logits():
    model = sequential(dense(), layers.Rescaling(0.1), layers.Softmax())
    logits = X.reshape(5, 4) @ model.get_weights()[0] / 10
    assert_allclose(logits_model(model)(X), logits, rtol=1e-5, atol=1e-6)


def test_the_logarithm_stays_in_float32_in_an_attack_in_bfloat16():
    model = sequential(dense("softmax"), layers.Rescaling(1.0))
    called = attacked_model(logits_model(model, "probs"), bfloat16=True)
    assert ops.dtype(called(X)) == "float32"
    assert_allclose(ops.softmax(called(X)), model(X), rtol=0.05)
