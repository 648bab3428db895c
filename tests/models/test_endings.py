"""`Ensemble([model])` answers as `model` does, whatever graph of layers that is."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose

from advens.models.ensemble import Ensemble
from advens.models.logits import logits_model
from advens.models.variants import attacked_model

# As many classes as pixels: a model can be called with its own answer.
SIZE = 4
X = np.random.default_rng(1).uniform(-1, 1, (6, SIZE)).astype("float32")


def dense(units, activation=None, **options):
    # Some probabilities are below 1e-30, and some are 1 in float32.
    kernel = keras.initializers.RandomNormal(stddev=20)
    return layers.Dense(units, activation, kernel_initializer=kernel, **options)


def softmax_of_einsum(x):
    kernel = keras.initializers.RandomNormal(stddev=20)
    return layers.EinsumDense(
        "ab,bc->ac", SIZE, activation="softmax", kernel_initializer=kernel
    )(x)


# What a model may end in, as functions of a tensor `(n, SIZE)`.
SOFTMAX = [
    lambda x: layers.Softmax()(dense(SIZE)(x)),
    lambda x: layers.Softmax(1, dtype="float32")(dense(SIZE)(x)),
    lambda x: layers.Softmax([-1])(dense(SIZE, "relu")(x)),
    lambda x: keras.Sequential([layers.Softmax()])(dense(SIZE)(x)),
    lambda x: dense(SIZE, "softmax", use_bias=False)(x),
    lambda x: dense(SIZE, ops.softmax, bias_initializer="ones")(x),
    lambda x: dense(SIZE, layers.Softmax())(x),
    lambda x: layers.Activation("softmax", dtype="float32")(dense(SIZE)(x)),
    lambda x: layers.Activation(ops.softmax)(dense(SIZE)(x) / 2),
    lambda x: ops.softmax(dense(SIZE)(x)),
    lambda x: keras.activations.softmax(dense(SIZE)(x), axis=1),
    softmax_of_einsum,
]
SIGMOID = [
    lambda x: dense(1, "sigmoid", bias_initializer="ones")(x),
    lambda x: dense(1, ops.sigmoid)(x),
    lambda x: layers.Activation("sigmoid", dtype="float32")(dense(1)(x)),
    lambda x: ops.sigmoid(dense(1)(x)),
]
LOGITS = [
    lambda x, units: dense(units, bias_initializer="ones")(x),
    lambda x, units: layers.Activation("linear")(dense(units)(x)),
]
LOG_PROBS = [
    lambda x: dense(SIZE, "log_softmax")(x),
    lambda x: layers.Activation("log_softmax")(dense(SIZE)(x)),
    lambda x: ops.log_softmax(dense(SIZE)(x)),
]
KINDS = ("softmax", "softmax", "sigmoid", "logits", "one logit", "log probs")
BEHIND = [
    lambda: layers.Activation("linear"),
    lambda: layers.Activation("linear", dtype="float32"),
    layers.Identity,
    lambda: keras.Sequential([layers.Identity(), layers.Activation("linear")]),
]


class Graphs:
    """Draws graphs of layers, of which one output is the answer."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def pick(self, choices):
        return choices[self.rng.integers(len(choices))]

    def model(self, kind):
        inputs = keras.Input((SIZE,))
        return keras.Model(inputs, self.answer(inputs, kind, int(self.pick("0123"))))

    def answer(self, x, kind, depth):
        """Return the symbolic answer of a classifier of `x`, `(n, SIZE)`."""
        if depth == 0:
            return self.ending(self.features(x), kind)
        grow = self.pick(
            [
                *(self.nested, self.behind, self.one_of_several_heads),
                *(self.several_inputs, self.called_twice, self.shared_head),
                *(self.in_sequential, self.of_its_own_answer),
            ]
        )
        return grow(x, kind, depth - 1)

    def ending(self, x, kind):
        if kind == "logits":
            return self.pick(LOGITS)(x, SIZE)
        if kind == "one logit":
            return self.pick(LOGITS)(x, 1)
        endings = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "log probs": LOG_PROBS}
        return self.pick(endings[kind])(x)

    def features(self, x):
        dtype = self.pick([None, None, "mixed_float16", "mixed_bfloat16", "float16"])
        layer = layers.Dense(SIZE, "tanh", dtype=dtype)
        return self.pick([x, layer(x), ops.tanh(x), layer(layer(x))])

    def inner(self, kind, depth):
        inputs = keras.Input((SIZE,))
        return keras.Model(inputs, self.answer(inputs, kind, depth))

    def nested(self, x, kind, depth):
        return self.inner(kind, depth)(self.features(x))

    def behind(self, x, kind, depth):
        return self.pick(BEHIND)()(self.answer(x, kind, depth))

    def in_sequential(self, x, kind, depth):
        body = layers.Dense(SIZE, "tanh")
        model = keras.Sequential([body, self.inner(kind, depth)])
        return model(x, training=self.pick([None, False]))

    def one_of_several_heads(self, x, kind, depth):
        inputs = keras.Input((SIZE,))
        kinds = [str(self.rng.choice(KINDS)) for _ in range(2)]
        kinds.insert(place := int(self.rng.integers(3)), kind)
        heads = [self.answer(inputs, kind, depth) for kind in kinds]
        if self.rng.random() < 0.5:
            return keras.Model(inputs, heads)(x)[place]
        names = self.rng.permutation(["a", "b", "c"]).tolist()
        heads = dict(zip(names, heads, strict=True))
        return keras.Model(inputs, heads)(x)[names[place]]

    def several_inputs(self, x, kind, depth):
        names = self.rng.permutation(["one", "other"]).tolist()
        inputs = {name: keras.Input((SIZE,), name=name) for name in names}
        both = inputs["one"] - 2 * inputs["other"]
        answer = self.answer(both, kind, depth)
        fed = {"one": x, "other": self.features(x)}
        if self.rng.random() < 0.5:
            return keras.Model(inputs, answer)(fed)
        fed = [fed[name] for name in names]
        return keras.Model(list(inputs.values()), answer)(fed)

    def called_twice(self, x, kind, depth):
        inner = self.inner(kind, depth)
        return self.pick([inner(x / 2), inner(-x)])

    def shared_head(self, x, kind, depth):
        """Call a layer twice, and take one of the answers."""
        units = 1 if kind in ("sigmoid", "one logit") else SIZE
        activation = {"softmax": "softmax", "sigmoid": "sigmoid"}.get(kind)
        if kind == "log probs":
            activation = "log_softmax"
        head = dense(units, activation)
        return self.pick([head(self.features(x)), head(-x)])

    def of_its_own_answer(self, x, kind, depth):
        """Call a model, or its last layer, with its own answer."""
        if kind not in ("softmax", "logits", "log probs"):
            return self.answer(x, kind, depth)
        inner = self.pick([self.inner(kind, depth), dense(SIZE, "softmax")])
        if kind != "softmax":
            inner = self.inner(kind, depth)
        return inner(ops.tanh(inner(x)))


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def run(model):
    return ops.convert_to_numpy(ops.cast(model(X), "float32")).astype("float64")


def check(model, kind):
    """Check what an ensemble of one makes of a model's answers."""
    answer, logits = run(model), run(logits_model(model))
    half = "16" in model.outputs[0].dtype
    tolerance = {"rtol": 0.02, "atol": 0.02} if half else {"rtol": 1e-5, "atol": 1e-5}
    if kind == "sigmoid":
        answer = np.concatenate([1 - answer, answer], axis=1)
    if kind == "one logit":
        answer = np.concatenate([0 * answer, answer], axis=1)
    assert np.isfinite(logits).all()
    if kind not in ("softmax", "sigmoid"):
        assert_allclose(logits, answer, **tolerance)
        answer = np.exp(log_softmax(answer))
    assert_allclose(run(Ensemble([model])), answer, rtol=0, atol=tolerance["atol"])
    # Logarithms of saturated probabilities would end somewhere.
    log_probs = log_softmax(logits)
    exact = answer > (0.01 if half or kind == "sigmoid" else 1e-30)
    assert_allclose(log_probs[exact], np.log(answer[exact]), **tolerance)
    assert (log_probs[answer == 0] < -10).all()
    # Logarithms of probabilities are normalized. Most logits are not.
    if kind in ("softmax", "logits"):
        assert np.abs(logits - log_probs).max() > 0.01


@pytest.mark.parametrize("first", range(0, 240, 20))
def test_random_graphs(first):
    for seed in range(first, first + 20):
        keras.utils.set_random_seed(seed)
        kind = KINDS[seed % len(KINDS)]
        model = Graphs(seed).model(kind)
        try:
            check(model, kind)
        except Exception as error:
            error.add_note(f"{kind} graph {seed}")
            raise


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_graphs_in_bfloat16(kind):
    for seed in range(12):
        keras.utils.set_random_seed(seed)
        logits = logits_model(Graphs(seed).model(kind))
        if copy := copied_in_bfloat16(logits):
            want = run(logits)
            # It has 8 bits.
            atol = 0.05 * np.abs(want).max()
            assert_allclose(run(copy), want, rtol=0, atol=atol)


def copied_in_bfloat16(model):
    """Return None for a model with an activation that has no config."""
    try:
        return attacked_model(model, bfloat16=True)
    except ValueError as error:
        assert "Keras's own layers" in str(error)
