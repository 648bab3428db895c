import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import evaluate
from advens.models.ensemble import Ensemble, check_ensemble

X = np.random.default_rng(1).uniform(size=(5, 2, 2, 1)).astype("float32")
Y = np.array([0, 1, 2, 1, 0])


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """A model whose graph Keras does not know: nobody can tell what it returns."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(3, activation="softmax")

    def call(self, inputs):
        return self.dense(self.flatten(inputs))


def subclassed():
    model = Subclassed()
    model(X)
    return model


def sequential(*tail):
    return keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), *tail])


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def probs_of(linear):
    _, kernels, biases = linear
    return softmax(X.reshape(5, 4) @ kernels + biases[:, None])


def dense(activation=None, **options):
    return layers.Dense(3, activation=activation, **options)


def two_outputs():
    inputs = keras.Input((2, 2, 1))
    flat = layers.Flatten()(inputs)
    return keras.Model(inputs, [dense()(flat), dense()(flat)])


def inputs_of(dtype):
    inputs = keras.Input((2, 2, 1), dtype=dtype)
    return keras.Model(inputs, dense()(layers.Rescaling(1 / 255)(inputs)[:, 0, 0]))


def two_inputs():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(inputs, dense()(inputs[0] + inputs[1]))


UNSUITABLE = {
    "none": (lambda: [], "at least one model. Received: none"),
    "no list": (
        lambda: sequential(dense()),
        r"also for a single one: Ensemble\(\[model\]\). Received: <Sequential",
    ),
    "None": (lambda: None, "must be a list of models.* Received: None"),
    "no model": (
        lambda: [sequential(dense()), ops.softmax],
        r"must be a Keras model. Received: members\[1\] \(<function.*, a function",
    ),
    "path": (
        lambda: ["model.keras"],
        r"Received: members\[0\] \('model.keras'\), a str",
    ),
    "unbuilt": (
        lambda: [keras.Sequential([dense()])],
        r"must be built. Received: members\[0\]",
    ),
    "output": (
        lambda: [sequential(dense()), sequential(layers.Dense(4))],
        r"logits \(None, 3\), members\[1\] maps .* to logits \(None, 4\)",
    ),
    "one unit among three classes": (
        lambda: [sequential(dense()), sequential(layers.Dense(1))],
        r"logits \(None, 3\), members\[1\] maps .* to logits \(None, 2\)",
    ),
    "input": (
        lambda: [sequential(dense()), keras.Sequential([keras.Input((4,)), dense()])],
        r"\(None, 2, 2, 1\) .* members\[1\] maps \(None, 4\)",
    ),
    "no classes": (
        lambda: [keras.Sequential([keras.Input((2, 2, 1)), dense()])],
        r"must return `\(n, num_classes\)`.* members\[0\] .* returns \(None, 2, 2, 3\)",
    ),
    "two outputs": (
        lambda: [two_outputs()],
        r"one input and one output. Received: members\[0\] .* with 2 outputs",
    ),
    "two inputs": (
        lambda: [two_inputs()],
        r"one input and one output. Received: members\[0\] .* with 2 inputs",
    ),
    "integers": (
        lambda: [inputs_of("uint8")],
        r"images as floats.* Received: members\[0\] .*, whose input is uint8",
    ),
    "embedding": (
        lambda: [
            keras.Sequential(
                [keras.Input((4,)), layers.Embedding(9, 2), layers.Flatten(), dense()]
            )
        ],
        r"differentiable .* members\[0\] .* with layer 'embedding",
    ),
    "several labels": (
        lambda: [sequential(dense("sigmoid"))],
        r"exclude each other. Received: members\[0\] .* ends in a sigmoid of 3",
    ),
    "softmax of one": (
        lambda: [sequential(layers.Dense(1, activation="softmax"))],
        r"Received: members\[0\] .* ends in a softmax of 1",
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


def one_unit(bias, *tail, activation=None):
    """Return a model whose only logit is the sum of the pixels and a bias."""
    model = sequential(layers.Dense(1, activation), *tail)
    model.layers[1].set_weights([np.ones((4, 1)), np.array([bias])])
    return model


# The logit of class 1, of an image of zeros, is log(3): the odds are 3 : 1.
ONE_UNIT = {
    "logit": lambda: one_unit(np.log(3)),
    "sigmoid": lambda: one_unit(np.log(3), activation="sigmoid"),
    "Activation": lambda: one_unit(np.log(3), layers.Activation("sigmoid")),
    "operation": lambda: one_unit(np.log(3), activation=ops.sigmoid),
}


@pytest.mark.parametrize("ending", ONE_UNIT)
def test_one_output_unit_is_two_classes(ending):
    two = sequential(layers.Dense(2))
    two.layers[1].set_weights([np.zeros((4, 2)), np.zeros(2)])
    single = Ensemble([ONE_UNIT[ending]()])
    zeros = 0 * X
    assert single.num_classes == 2
    assert single.compute_output_shape((7, 2, 2, 1)) == (7, 2)
    assert_allclose(single(zeros), [[0.25, 0.75]] * 5, rtol=0, atol=1e-6)
    # The logits are far from where a sigmoid is 1.
    got = single.member_logits(zeros + 100, 0)
    assert_allclose(got, [[0, 400 + np.log(3)]] * 5, rtol=1e-6)
    mixed = Ensemble([two, ONE_UNIT[ending]()])
    assert mixed.num_classes == 2
    assert_allclose(mixed(zeros), [[0.375, 0.625]] * 5, rtol=0, atol=1e-6)
    [outcomes] = evaluate(mixed, zeros, np.array([0, 1, 1, 0, 1]))
    assert outcomes.ensemble.tolist() == [False, True, True, False, True]
    with pytest.raises(ValueError, match="labels from 0 to 1"):
        evaluate(mixed, X, Y)


def test_a_subclassed_member_with_one_unit():
    class OneUnit(keras.Model):
        def __init__(self, activation):
            super().__init__()
            self.model = one_unit(np.log(3), activation=activation)

        def call(self, inputs):
            return self.model(inputs)

    for activation, outputs in ((None, "logits"), ("sigmoid", "probs")):
        member = OneUnit(activation)
        member(X)
        ensemble = Ensemble([member], outputs=outputs)
        assert_allclose(ensemble(0 * X), [[0.25, 0.75]] * 5, rtol=0, atol=1e-6)
        [outcomes] = evaluate(ensemble, 0 * X, np.array([0, 1, 1, 0, 1]))
        assert outcomes.ensemble.tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_a_global_policy_changes_nothing_of_float32_members(policy):
    member, usual = sequential(dense("softmax")), keras.config.dtype_policy()
    unknown = subclassed()
    keras.config.set_dtype_policy(policy)
    try:
        ensembles = Ensemble([member]), Ensemble([unknown], outputs="probs")
        got = [ops.convert_to_numpy(ensemble(X)) for ensemble in ensembles]
    finally:
        keras.config.set_dtype_policy(usual)
    assert_allclose(got[0], member(X), rtol=1e-6)
    assert_allclose(got[1], unknown(X), rtol=1e-5)


def test_images_of_any_size():
    def model(size):
        inputs = keras.Input((size, size, 1))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 2)(inputs))
        return keras.Model(inputs, dense("softmax")(x))

    members = [model(None), model(2)]
    for order in (members, members[::-1]):
        want = np.mean([member(X) for member in members], axis=0)
        assert_allclose(Ensemble(order)(X), want, rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(None, 2, 2, 1\).*\(None, 3, 3, 1\)"):
        Ensemble([model(2), model(3)])


@pytest.mark.parametrize(
    "preprocessing",
    [
        lambda: layers.Rescaling(2.0, offset=-1),
        lambda: layers.Normalization(mean=0.5, variance=4.0),
        lambda: layers.Resizing(3, 3),
        lambda: layers.Permute((3, 1, 2)),  # channels first
    ],
)
def test_members_that_prepare_the_images(preprocessing):
    inputs = keras.Input((2, 2, 1))
    x = layers.Flatten()(preprocessing()(inputs))
    model = keras.Model(inputs, dense("softmax")(x))
    ensemble = Ensemble([model])
    assert_allclose(ensemble(X), model(X), rtol=1e-5, atol=1e-6)
    [outcomes] = evaluate(
        ensemble, X, Y, threat=Threat("ensemble"), attacks=[Attack("FGSM", 0.1, 0.1, 1)]
    )
    assert not outcomes.zero_gradient.any()


def test_a_structure_of_one_input_or_output():
    inputs = keras.Input((2, 2, 1), name="image")
    probs = dense("softmax")(layers.Flatten()(inputs))
    want = keras.Model(inputs, probs)(X)
    for given, returned in (
        ({"image": inputs}, probs),
        ([inputs], [probs]),
        (inputs, {"probs": probs}),
    ):
        got = Ensemble([keras.Model(given, returned)])(X)
        assert_allclose(got, want, rtol=1e-5, atol=1e-6)


class WithDict(Subclassed):
    """A model as `TFSMLayer` makes it: it returns a dict."""

    def __init__(self, *names, **kwargs):
        super().__init__(**kwargs)
        self.names = names

    def call(self, inputs):
        return dict.fromkeys(self.names, super().call(inputs))


def test_a_subclassed_member_that_returns_a_dict():
    one, several = WithDict("output_0"), WithDict("output_0", "features")
    want = one(X)["output_0"]
    assert_allclose(Ensemble([one], outputs="probs")(X), want, rtol=1e-5)
    several(X)
    with pytest.raises(ValueError, match="one output. Received: .* with 2 outputs"):
        Ensemble([several], outputs="probs")(X)


def test_mean_of_probabilities(linear):
    probs = probs_of(linear)
    assert_allclose(linear[0](X), probs.mean(axis=0), rtol=1e-5, atol=1e-6)
    for i in range(3):
        got = ops.softmax(linear[0].member_logits(X, i))
        assert_allclose(got, probs[i], rtol=1e-5, atol=1e-6)
        assert_array_equal(linear[0].member_logits(X)[i], linear[0].member_logits(X, i))


@pytest.mark.parametrize("case", UNSUITABLE)
def test_unsuitable_members(case):
    members, message = UNSUITABLE[case]
    with pytest.raises(ValueError, match=message):
        Ensemble(members())


def test_outputs_may_be_given_member_by_member():
    known, unknown = sequential(dense()), subclassed()
    ensemble = Ensemble([known, unknown], outputs=[None, "probs"])
    want = (softmax(np.array(known(X))) + np.array(unknown(X))) / 2
    assert_allclose(ensemble(X), want, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="one per member. Received: 1 for 2 members"):
        Ensemble([known, unknown], outputs=["probs"])


def test_unknown_outputs(linear):
    message = r"`outputs` must be one of 'logits', 'probs', None. .*'proba'"
    with pytest.raises(ValueError, match=message):
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


def nested():
    inner = sequential(layers.Dense(4, "tanh"))
    inputs = keras.Input((2, 2, 1))
    return keras.Model(inputs, dense("softmax")(inner(inputs)))


SAVED = {
    "one unit": lambda: Ensemble([ONE_UNIT["sigmoid"](), ONE_UNIT["logit"]()]),
    "mixed": lambda: Ensemble([ONE_UNIT["sigmoid"](), sequential(layers.Dense(2))]),
    "nested": lambda: Ensemble([nested(), sequential(dense("softmax"))]),
    "twice": lambda: Ensemble([nested()] * 2),
    "outputs": lambda: Ensemble([subclassed()], outputs="probs"),
    "nested outputs": lambda: Ensemble([sequential_of(subclassed())], outputs="probs"),
    "several outputs": lambda: Ensemble(
        [subclassed(), sequential(dense())], outputs=["probs", None]
    ),
}


def sequential_of(model):
    return keras.Sequential([keras.Input((2, 2, 1)), model])


@pytest.mark.parametrize("case", SAVED)
def test_save_and_load_any_members(tmp_path, case):
    ensemble = SAVED[case]()
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.models.load_model(tmp_path / "e.keras")
    assert_allclose(loaded(X), ensemble(X), rtol=1e-6, atol=1e-7)


def test_members_that_share_layers_are_not_saved(tmp_path):
    shared = layers.Dense(4, name="shared")

    def ensemble():
        members = [sequential(shared, dense()) for _ in range(2)]
        for member in members:
            member.layers[-1].set_weights([np.eye(4, 3), np.ones(3)])
        return Ensemble(members)

    message = "must not share layers .* Received: .* share 'shared'. Save the weights"
    with pytest.raises(ValueError, match=message):
        ensemble().save(tmp_path / "e.keras")
    ensemble().save_weights(tmp_path / "e.weights.h5")
    want = np.array(ensemble()(X))
    shared.set_weights([np.zeros((4, 4)), np.zeros(4)])
    loaded = ensemble()
    assert np.abs(loaded(X) - want).max() > 0.01
    loaded.load_weights(tmp_path / "e.weights.h5")
    assert_allclose(loaded(X), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("used", ["never", "called", "predicted"])
def test_export(linear, tmp_path, used):
    import tensorflow as tf

    ensemble = linear[0]
    if used == "called":
        ensemble(X)
    if used == "predicted":
        ensemble.predict(X, verbose=0)
    ensemble.export(tmp_path / "exported", verbose=False)
    try:
        exported = tf.saved_model.load(tmp_path / "exported")
        served = exported.serve(X)
    except NotImplementedError:
        pytest.skip("this TensorFlow is too old for what this JAX exports")
    assert_allclose(served, ensemble(X), rtol=1e-5, atol=1e-6)


def test_an_attack_is_neither_tracked_nor_saved(linear, tmp_path):
    ensemble = linear[0]
    variables = [id(variable) for variable in ensemble.variables]
    evaluate(
        ensemble, X, Y, threat=Threat("ensemble"), attacks=[Attack("FGSM", 0.1, 0.1, 1)]
    )
    assert len(ensemble.programs) > 0
    assert [id(variable) for variable in ensemble.variables] == variables
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.models.load_model(tmp_path / "e.keras")
    assert len(loaded.programs) == 0
    assert_allclose(loaded(X), ensemble(X), rtol=1e-6, atol=1e-7)


def test_config_is_not_changed_by_its_use(linear):
    config = linear[0].get_config()
    for _ in range(2):
        assert len(Ensemble.from_config(config)) == 3


def test_a_model_is_no_ensemble(linear):
    check_ensemble(linear[0])
    with pytest.raises(ValueError, match=r"single model, Ensemble\(\[model\]\)"):
        check_ensemble(linear[0][0])
