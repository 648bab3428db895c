"""What is changed in a member after its ensemble was made takes effect."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import adversarial_images, evaluate
from advens.models.ensemble import Ensemble

X = np.random.default_rng(1).uniform(size=(64, 3, 3, 1)).astype("float32")
Y = np.random.default_rng(2).integers(3, size=64)


def dense(units, activation=None):
    kernel = keras.initializers.RandomNormal(stddev=2)
    return layers.Dense(units, activation=activation, kernel_initializer=kernel)


class Scaled(layers.Layer):
    scale = 1.0

    def call(self, inputs):
        self.last = self.scale * inputs
        return self.last


class Subclassed(keras.Model):
    def __init__(self, body):
        super().__init__()
        self.body = body
        self.sign = 1

    def call(self, inputs):
        return ops.softmax(self.sign * self.body(inputs))


def plain():
    keras.utils.set_random_seed(7)
    body = keras.Sequential([keras.Input((9,)), dense(6, "tanh")], name="body")
    return keras.Sequential(
        [
            keras.Input((3, 3, 1)),
            layers.Flatten(),
            layers.Normalization(name="normalization"),
            body,
            layers.BatchNormalization(name="batch"),
            Scaled(name="scaled"),
            dense(3, "softmax"),
        ]
    )


def adapt(model):
    model.get_layer("normalization").adapt(5 * X.reshape(64, 9) ** 2)


def enable_lora(model):
    model.layers[-1].enable_lora(2)
    model.layers[-1].lora_kernel_b.assign([[3, 0, -3], [0, 3, -3]])


def replace_last_layer(model):
    model.pop()
    model.add(dense(3, "softmax"))


def replace_inner_layer(model):
    model.get_layer("body").pop()
    model.get_layer("body").add(dense(6, "relu"))


def reassign(layer, **attributes):
    def change(model):
        for name, value in attributes.items():
            setattr(model.get_layer(layer) if layer else model.layers[-1], name, value)

    return change


def of_inner(change):
    return lambda model: change(model.get_layer("body"))


def load_normalization(model):
    other = plain()
    adapt(other)
    layer = model.get_layer("normalization")
    layer.set_weights(other.get_layer("normalization").get_weights())
    layer.finalize_state()


CHANGES = {
    "int8": lambda model: model.quantize("int8"),
    "LoRA": enable_lora,
    "adapt": adapt,
    "statistics": load_normalization,
    "last layer": replace_last_layer,
    "inner layer": replace_inner_layer,
    "inner activation": of_inner(reassign("", activation=keras.activations.relu)),
    "other ending": reassign("", activation=keras.activations.linear),
    "precision": reassign("", dtype_policy="mixed_bfloat16"),
    "number of a custom layer": reassign("scaled", scale=-1.0),
    "epsilon": reassign("batch", epsilon=3.0),
    "weights": lambda m: m.layers[-1].set_weights([np.eye(6, 3), np.ones(3)]),
}
THREAT, ATTACKS = Threat("ensemble"), [Attack("FGSM", 0.2, 0.2, 1)]


def answers(ensemble):
    """Return what an ensemble says in all ways there are."""
    [outcomes] = evaluate(ensemble, X, Y)
    [images] = adversarial_images(ensemble, X, Y, threat=THREAT, attacks=ATTACKS)
    return {
        "call": ops.convert_to_numpy(ensemble(X)),
        "predict": ensemble.predict(X, verbose=0),
        "right": outcomes.ensemble,
        "attacked": images.x_adv,
    }


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_takes_effect_at_once(change):
    model = plain()
    ensemble = Ensemble([model])
    before = answers(ensemble)
    CHANGES[change](model)
    after = answers(ensemble)
    own = ops.convert_to_numpy(ops.cast(model(X), "float32"))
    probs = ops.convert_to_numpy(ops.softmax(own)) if change == "other ending" else own
    # In half precision the last activation rounds, too.
    atol = 0.01 if change == "precision" else 1e-5
    assert_allclose(after["call"], probs, rtol=0, atol=atol)
    assert_array_equal(after["right"], after["call"].argmax(axis=1) == Y)
    for name, want in answers(Ensemble([model])).items():
        assert_allclose(after[name], want, rtol=1e-5, atol=1e-6)
    if change != "other ending":
        assert np.abs(after["call"] - before["call"]).max() > 1e-4


def test_a_change_of_a_subclassed_member():
    member = Subclassed(plain())
    member(X)
    ensemble = Ensemble([member], outputs="probs")
    answers(ensemble)
    member.sign = -3
    assert_allclose(answers(ensemble)["predict"], member(X), rtol=1e-5, atol=1e-6)


def test_a_change_that_makes_members_differ_is_refused():
    ensemble = Ensemble([plain(), plain()])
    ensemble[1].pop()
    ensemble[1].add(dense(4))
    with pytest.raises(ValueError, match="same input shape and number of classes"):
        evaluate(ensemble, X, Y)


def use(model):
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    model.set_weights(model.get_weights())
    model.summary(print_fn=lambda *_, **__: None)
    model(X[:5], training=True)


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_using_and_training_a_member_keeps_the_programs(kind):
    layer = layers.Dense(3, activation="softmax")
    member = keras.Sequential([keras.Input((3, 3, 1)), layers.Flatten(), layer])
    if kind == "subclassed":
        member = Subclassed(member)
    member(X)
    ensemble = Ensemble([member], outputs="probs")
    evaluate(ensemble, X, Y, threat=THREAT, attacks=ATTACKS)
    programs = ensemble.programs
    use(member)
    assert ensemble.programs is programs
    layer.trainable = False
    assert ensemble.programs is not programs


def test_what_a_layer_keeps_of_a_compiled_call_is_no_change():
    ensemble = Ensemble([plain()])
    evaluate(ensemble, X, Y, threat=THREAT, attacks=ATTACKS)
    programs = ensemble.programs
    evaluate(ensemble, X, Y, threat=Threat("member", 0), attacks=ATTACKS, batch_size=9)
    assert ensemble.programs is programs
