import random
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import adversarial_images
from advens.models.ensemble import Ensemble
from advens.models.fast_layers import QuickConv2D
from advens.models.variants import attacked_model

X = np.random.default_rng(1).uniform(size=(4, 8, 8, 1)).astype("float32")
Y = np.array([0, 1, 2, 3])


def sequential(*body):
    return keras.Sequential(
        [keras.Input((8, 8, 1)), *body, layers.Flatten(), layers.Dense(4)]
    )


def plain():
    return sequential(layers.Conv2D(2, 3, activation="tanh"), layers.Dropout(0.5))


def functional():
    inputs = keras.Input((8, 8, 1))
    # Four layers of one shape, called in another order than they are made, and
    # operations that are no layers.
    convolutions = [layers.Conv2D(2, 3, padding="same") for _ in range(4)]
    x = [convolutions[i](inputs) for i in (2, 0, 3, 1)]
    x = layers.Concatenate()([x[0] * x[1], x[2] + 0.5, ops.tanh(x[3])])
    x = layers.BatchNormalization()(x[:, 1:])
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))


def nested():
    body = [layers.Conv2D(2, 3), layers.BatchNormalization(), layers.Dropout(0.5)]
    inner = keras.Sequential([keras.Input((8, 8, 1)), *body])
    inputs = keras.Input((8, 8, 1))
    outer = keras.Model(inputs, layers.ELU()(inner(inputs)))
    outer.trainable = False
    return sequential(outer)


def shared():
    """One layer is called twice, in and around a nested model."""
    inputs, convolution = keras.Input((8, 8, 1)), layers.Conv2D(1, 3, padding="same")
    inner = keras.Sequential([keras.Input((8, 8, 1)), convolution, layers.ELU()])
    x = layers.Flatten()(inner(convolution(inputs)))
    return keras.Model(inputs, layers.Dense(4)(x))


def compiled():
    """A model that was compiled with what cannot be read from a config."""
    inner = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3)])
    model = sequential(inner)
    for part in (inner, model):
        part.compile("adam", loss=lambda y, y_pred: ops.mean(y_pred, axis=-1))
    return model


class WithMoreLayers(keras.Model):
    """A functional model that holds a layer outside of its graph."""

    def __init__(self):
        inputs = keras.Input((8, 8, 1))
        x = layers.Flatten()(layers.Conv2D(2, 3)(inputs))
        super().__init__(inputs, layers.Dense(4)(x))
        self.unused = layers.Dense(3)
        self.unused.build((None, 3))


COPYABLE = [plain, functional, nested, shared, compiled, WithMoreLayers]


@keras.saving.register_keras_serializable("tests")
class Doubled(layers.Conv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Regularizer(keras.regularizers.Regularizer):
    def __call__(self, kernel):
        return ops.sum(kernel)


def with_lora():
    model = plain()
    # Keras leaves the scale, lora_alpha, out of the layer's config.
    model.layers[0].enable_lora(2, lora_alpha=8)
    return model


def quantized():
    model = plain()
    model.layers[-1].quantize("int8")
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = plain()

    def call(self, inputs, training=False):
        return self.body(inputs, training=training)


def subclassed():
    model = Subclassed()
    model(X)
    return model


NOT_COPYABLE = {
    "Lambda": lambda: sequential(layers.Conv2D(2, 3), layers.Lambda(lambda x: 2 * x)),
    "custom layer": lambda: sequential(Doubled(2, 3)),
    "nested custom layer": lambda: sequential(sequential(Doubled(2, 3)).layers[0]),
    "custom activation": lambda: sequential(
        layers.Conv2D(2, 3, activation=lambda x: ops.tanh(2 * x))
    ),
    "custom regularizer": lambda: sequential(
        layers.Conv2D(2, 3, kernel_regularizer=Regularizer())
    ),
    "adapted layer": lambda: sequential(
        layers.Normalization(mean=0.5, variance=2.0), layers.Conv2D(2, 3)
    ),
    "LoRA": with_lora,
    "quantized": quantized,
    "subclassed": subclassed,
}


def with_random_weights(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed_generator" in variable.path or "int" in str(variable.dtype):
            continue
        low = 0.5 if "variance" in variable.path else -0.5
        variable.assign(rng.uniform(low, 1, size=variable.shape))
    return model


def output_and_gradient(function):
    """Return a function's values at the images, and the gradient of some loss."""

    def losses(x):
        return ops.sum(ops.square(ops.cast(function(x), "float32")), axis=-1)

    gradient = backend.input_gradient(losses, ops.convert_to_tensor(X))
    values = ops.convert_to_numpy(ops.cast(function(X), "float32"))
    return values, ops.convert_to_numpy(gradient)


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert np.abs(b).max() > 0.1
        # What cancels in a sum is rounded as the sum's largest parts are.
        assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("build", COPYABLE)
def test_the_same_outputs_and_gradients(monkeypatch, build, onednn):
    monkeypatch.setattr(backend, "uses_onednn", lambda: onednn)
    model = with_random_weights(build())
    called = attacked_model(model)
    want = output_and_gradient(lambda x: model(x, training=False))
    assert_same(output_and_gradient(called), want)
    # The weights are those of the model, whatever they become.
    with_random_weights(model, seed=1)
    changed = output_and_gradient(lambda x: model(x, training=False))
    assert np.abs(changed[0] - want[0]).max() > 0.1
    assert_same(output_and_gradient(called), changed)


@pytest.mark.parametrize("build", COPYABLE)
def test_convolutions_of_grey_images_are_quick(monkeypatch, build):
    used = []
    usual = QuickConv2D.call

    def call(self, inputs):
        used.append(self.name)
        return usual(self, inputs)

    monkeypatch.setattr(QuickConv2D, "call", call)
    model = with_random_weights(build())
    called = attacked_model(model)
    used.clear()
    called(X)
    assert bool(used) != backend.use_xla()


@pytest.mark.parametrize("compute", ["eager", "compiled"])
@pytest.mark.parametrize("build", COPYABLE)
def test_in_bfloat16(build, compute):
    model = with_random_weights(build())
    called = attacked_model(model, bfloat16=True)
    assert ops.dtype(called(X)) == "bfloat16"
    if compute == "compiled":
        called = backend.compile(called, model)
    for seed in range(2):
        with_random_weights(model, seed)
        got = output_and_gradient(called)
        want = output_and_gradient(lambda x: model(x, training=False))
        for a, b in zip(got, want, strict=True):
            # It has 8 bits.
            error = np.abs(a - b).max() / np.abs(b).max()
            assert 1e-4 < error < 0.05


@pytest.mark.parametrize("build", NOT_COPYABLE)
def test_other_models_are_used_as_they_are(build):
    model = with_random_weights(NOT_COPYABLE[build]())
    got = output_and_gradient(attacked_model(model))
    want = output_and_gradient(lambda x: model(x, training=False))
    for a, b in zip(got, want, strict=True):
        assert_array_equal(a, b)
    message = (
        "compute='bfloat16' needs members that are Sequential or functional models of "
        "Keras's own layers and functions, not quantized and without LoRA. "
        f"Received: '{model.name}'"
    )
    with pytest.raises(ValueError) as error:
        attacked_model(model, bfloat16=True)
    assert str(error.value) == message


def layers_of(model):
    """Return a model, its layers, and those of the models in it."""
    models_and_layers = [model]
    for layer in getattr(model, "layers", []):
        models_and_layers += layers_of(layer)
    return models_and_layers


def state_of(model):
    """Return what an attack might change of a model and its layers."""
    return [
        (
            set(vars(layer)),
            type(layer),
            layer.dtype_policy.name,
            layer.trainable,
            len(layer._inbound_nodes),
            len(layer._outbound_nodes),
            [id(variable) for variable in layer.variables],
            [ops.convert_to_numpy(variable).tolist() for variable in layer.variables],
        )
        for layer in layers_of(model)
    ]


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("build", COPYABLE)
def test_an_attack_changes_nothing_of_a_model(build, compute):
    model = with_random_weights(build())
    model(X)
    before = state_of(model)
    ensemble = Ensemble([model])
    numpy_state = np.random.get_state()[1].tolist()
    randomness = random.getstate()
    adversarial_images(
        ensemble,
        X,
        Y,
        threat=Threat("ensemble", compute=compute),
        attacks=[Attack("BIM", 0.2, 0.1, 2)],
    )
    assert random.getstate() == randomness
    assert np.random.get_state()[1].tolist() == numpy_state
    assert state_of(model) == before


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_threads_can_attack_one_ensemble_at_a_time(compute):
    """All threads trace the same members at the same time."""
    members = [with_random_weights(plain(), seed) for seed in range(2)]
    threats = [
        Threat("mean_member", compute=compute),
        Threat("ensemble", compute=compute),
        Threat("member", 1, labels="repredicted", compute=compute),
    ]

    def attack(ensemble, threat):
        attacks = [Attack("BIM", 0.2, 0.1, 3)]
        [crafted] = adversarial_images(ensemble, X, Y, threat=threat, attacks=attacks)
        return crafted.x_adv

    want = [attack(Ensemble(members), threat) for threat in threats]
    for _ in range(3):
        ensemble, barrier = Ensemble(members), threading.Barrier(len(threats))

        def attack_with_others(threat, ensemble=ensemble, barrier=barrier):
            barrier.wait()
            return attack(ensemble, threat)

        with ThreadPoolExecutor(len(threats)) as pool:
            got = list(pool.map(attack_with_others, threats))
        for together, alone in zip(got, want, strict=True):
            assert_allclose(together, alone, rtol=0, atol=1e-6)
