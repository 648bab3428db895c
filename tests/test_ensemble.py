import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens.ensemble import Ensemble
from advens.logits import logits_model

X = np.random.default_rng(1).uniform(size=(5, 2, 2, 1)).astype("float32")
Y = np.array([0, 1, 2, 1, 0])


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(3, activation=activation)
        self.activation = activation

    def call(self, inputs):
        return self.dense(self.flatten(inputs))

    def get_config(self):
        return {**super().get_config(), "activation": self.activation}


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


def probs_of(linear):
    _, kernels, biases = linear
    return softmax(X.reshape(5, 4) @ kernels + biases[:, None])


def dense(activation=None, **options):
    return layers.Dense(3, activation=activation, **options)


# Of each ending: what it returns, and the layers after Flatten.
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
UNTOLD = {
    "relu": lambda: functional(dense("relu")),
    "sigmoid": lambda: sequential(dense("sigmoid")),
    "dropout": lambda: sequential(dense(), layers.Dropout(0.5)),
    "lambda": lambda: functional(dense(), layers.Lambda(ops.softmax)),
    "subclassed": subclassed,
    "nested": lambda: nested(sequential(dense("relu"))),
    "nested subclassed": lambda: nested(subclassed()),
}
UNTOLD_PROBS = {
    "lambda": lambda: sequential(dense(), layers.Lambda(ops.softmax)),
    "subclassed": lambda: subclassed("softmax"),
    "nested subclassed": lambda: nested(subclassed("softmax")),
}


def two_outputs():
    inputs = keras.Input((2, 2, 1))
    flat = layers.Flatten()(inputs)
    return keras.Model(inputs, [dense()(flat), dense()(flat)])


UNSUITABLE = {
    "none": (lambda: [], "at least one model. Received: none"),
    "no model": (
        lambda: [sequential(dense()), ops.softmax],
        r"must be Keras models. Received: members\[1\]=<function",
    ),
    "unbuilt": (
        lambda: [keras.Sequential([dense()])],
        r"must be built. Received: members\[0\]",
    ),
    "output": (
        lambda: [sequential(dense()), sequential(layers.Dense(4))],
        r"\(None, 3\), members\[1\] maps .* to \(None, 4\)",
    ),
    "input": (
        lambda: [sequential(dense()), keras.Sequential([keras.Input((4,)), dense()])],
        r"\(None, 2, 2, 1\) .* members\[1\] maps \(None, 4\)",
    ),
    "one class": (
        lambda: [sequential(layers.Dense(1))],
        r"two classes or more .* members\[0\] .* returns \(None, 1\)",
    ),
    "two outputs": (
        lambda: [two_outputs()],
        r"one input and one output. Received: members\[0\] .* with 2 outputs",
    ),
}


def test_mean_of_probabilities_by_hand():
    def constant(*logits):
        model = sequential(layers.Dense(2))
        model.layers[-1].set_weights([np.zeros((4, 2)), np.log(logits)])
        return model

    # Odds 1 : 1 and 3 : 1; the mean of the logits would give .634.
    ensemble = Ensemble([constant(1, 1), constant(3, 1)])
    assert_allclose(ensemble(X[:1]), [[0.625, 0.375]], rtol=0, atol=1e-6)


def test_mean_of_probabilities(linear):
    probs = probs_of(linear)
    assert_allclose(linear[0](X), probs.mean(axis=0), rtol=1e-5, atol=1e-6)
    for i in range(3):
        got = ops.softmax(linear[0].member_logits(X, i))
        assert_allclose(got, probs[i], rtol=1e-5, atol=1e-6)
        assert_array_equal(linear[0].member_logits(X)[i], linear[0].member_logits(X, i))


@pytest.mark.parametrize("build", [sequential, functional])
@pytest.mark.parametrize("depth", ["flat", "nested"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_are_told_apart(build, depth, ending):
    kind, layers_of = ENDINGS[ending]
    flat = build(*layers_of())
    model = nested(flat, build=build) if depth == "nested" else flat
    logits = X.reshape(5, 4) @ np.array(flat.weights[0])
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


@pytest.mark.parametrize("ending", UNTOLD)
def test_untold_endings_need_outputs(ending):
    model = UNTOLD[ending]()
    for make in (logits_model, lambda model: Ensemble([model])):
        with pytest.raises(
            ValueError, match="Cannot tell whether .* Say it by outputs"
        ):
            make(model)
    answer = np.array(model(X))
    got = Ensemble([model], outputs="logits")(X)
    assert_allclose(got, softmax(answer), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ending", UNTOLD_PROBS)
def test_untold_probabilities(ending):
    model = UNTOLD_PROBS[ending]()
    got = ops.softmax(logits_model(model, "probs")(X))
    assert_allclose(got, model(X), rtol=1e-5, atol=1e-6)
    ensemble = Ensemble([model], outputs="probs")
    assert_allclose(ensemble(X), model(X), rtol=1e-5, atol=1e-6)


def test_untold_probabilities_may_be_zero():
    def one_hot(x):
        return ops.one_hot(ops.zeros(ops.shape(x)[:1], "int32"), 3)

    logits = logits_model(sequential(layers.Lambda(one_hot)), "probs")(X)
    assert_allclose(ops.softmax(logits), [[1, 0, 0]] * 5, rtol=0, atol=1e-30)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("case", UNSUITABLE)
def test_unsuitable_members(case):
    members, message = UNSUITABLE[case]
    with pytest.raises(ValueError, match=message):
        Ensemble(members())


def test_each_member_may_be_told_apart():
    told, untold = sequential(dense()), subclassed("softmax")
    ensemble = Ensemble([told, untold], outputs=[None, "probs"])
    want = (softmax(np.array(told(X))) + np.array(untold(X))) / 2
    assert_allclose(ensemble(X), want, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="one a member. Received: 1 for 2 members"):
        Ensemble([told, untold], outputs=["probs"])


def test_a_call_of_ones_own_does_not_tell():
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


def test_unknown_outputs(linear):
    with pytest.raises(ValueError, match="'logits', 'probs' or None. .*'proba'"):
        Ensemble(linear[0].members, outputs="proba")


def test_is_a_sequence_of_its_members(linear):
    ensemble = linear[0]
    members = ensemble.members
    assert len(ensemble) == 3
    assert ensemble[0] is members[0]
    assert ensemble[-1] is members[2]
    assert list(ensemble) == list(members)
    with pytest.raises(IndexError):
        ensemble[3]


def test_weights_are_counted_once(linear):
    ensemble = linear[0]
    assert len({id(v) for v in ensemble.variables}) == len(ensemble.variables) == 6
    assert len(ensemble.trainable_variables) == len(ensemble.weights) == 6
    assert ensemble.count_params() == 3 * (4 * 3 + 3)
    assert ensemble.layers == list(ensemble)
    assert len(Ensemble([ensemble[0]] * 2).weights) == 2


def test_assigned_weights_count(linear):
    ensemble, kernels, biases = linear
    kernels[1] *= -2
    ensemble[1].set_weights([kernels[1], biases[1]])
    want = probs_of((ensemble, kernels, biases)).mean(axis=0)
    assert_allclose(ensemble(X), want, rtol=1e-5, atol=1e-6)


def test_predict_and_evaluate(linear):
    ensemble = linear[0]
    probs = probs_of(linear).mean(axis=0)
    got = ensemble.predict(X, batch_size=2, verbose=0)
    assert_allclose(got, probs, rtol=1e-5, atol=1e-6)
    assert ensemble.compute_output_shape((7, 2, 2, 1)) == (7, 3)
    ensemble.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    got = ensemble.evaluate(X, Y, verbose=0)
    loss = -np.log(probs[range(5), Y]).mean()
    accuracy = (probs.argmax(axis=1) == Y).mean()
    assert_allclose(got, [loss, accuracy], rtol=1e-5, atol=1e-6)


def test_dropout_only_in_training(convs, images):
    x, _ = images
    assert_array_equal(convs(x), convs(x, training=False))
    assert np.abs(convs(x) - convs(x, training=True)).max() > 0.01


def test_save_and_load(linear, convs, images, tmp_path):
    for ensemble, x in ((linear[0], X), (convs, images[0])):
        path = tmp_path / "new" / f"{ensemble.name}.keras"
        path.parent.mkdir(exist_ok=True)
        ensemble.save(path)
        loaded = keras.models.load_model(path)
        assert isinstance(loaded, Ensemble)
        assert loaded.name == ensemble.name
        assert len(loaded) == 3
        assert len(loaded.weights) == len(ensemble.weights)
        assert_allclose(loaded(x), ensemble(x), rtol=1e-6, atol=1e-7)
        loaded.load_weights(path)
        assert_allclose(loaded(x), ensemble(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("ending", ["subclassed", "nested subclassed"])
def test_save_and_load_with_outputs(tmp_path, ending):
    ensemble = Ensemble([UNTOLD_PROBS[ending]()], outputs="probs")
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.models.load_model(tmp_path / "e.keras")
    assert_allclose(loaded(X), ensemble(X), rtol=1e-6, atol=1e-7)


def test_config_is_not_changed_by_its_use(linear):
    config = linear[0].get_config()
    for _ in range(2):
        assert len(Ensemble.from_config(config)) == 3
