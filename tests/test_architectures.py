"""Attacks and defences on networks that people have, with random weights."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import (
    AdversarialTraining,
    Attack,
    Ensemble,
    Threat,
    adversarial_images,
    gradient,
)

pytestmark = pytest.mark.slow

EPS = 0.01
ATTACKS = [Attack("FGSM", EPS, EPS, 1), Attack("BIM", EPS, EPS / 2, 3)]
THREATS = [Threat("member", 0), Threat("mean_member"), Threat("ensemble")]


@dataclasses.dataclass(frozen=True)
class Case:
    """A network: a function that builds one, and what has to be known of it."""

    build: Callable[[], keras.Model]
    num_classes: int = 10
    returns_logits: bool = False
    # Of a gradient's entries, relative to the largest of the image.
    tolerance: float = 1e-4


def whole(name, preprocessing):
    """Return a network of `keras.applications`, up to its softmax of ten classes."""

    def build():
        network = getattr(keras.applications, name)(
            input_shape=(32, 32, 3), weights=None, classes=10
        )
        return keras.Sequential([keras.Input((32, 32, 3)), preprocessing(), network])

    return Case(build)


def first_blocks(name, last, preprocessing, **options):
    """Return a network of `keras.applications` up to the layer `last`, with a head.

    The blocks hold layers of all its kinds; the whole takes minutes to compile.
    """

    def build():
        network = getattr(keras.applications, name)(
            input_shape=(32, 32, 3), weights=None, include_top=False, **options
        )
        blocks = keras.Model(network.input, network.get_layer(last).output)
        return keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                preprocessing(),
                blocks,
                layers.GlobalAveragePooling2D(),
                layers.Dense(10, activation="softmax"),
            ]
        )

    return Case(build)


def to_minus_one():
    return layers.Rescaling(2.0, offset=-1.0)


def to_bytes():
    return layers.Rescaling(255.0)


def sequential(shape, *body, num_classes=10, dtype=None):
    def build():
        copies = [layer.from_config(layer.get_config()) for layer in body]
        last = layers.Dense(num_classes, dtype=dtype)
        return keras.Sequential([keras.Input(shape), *copies, last])

    return build


def vision_transformer():
    images = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 4, strides=4)(images)
    x = layers.Reshape((16, 8))(x)
    for _ in range(2):
        normal = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(num_heads=2, key_dim=4, dropout=0.1)
        x = layers.Add()([x, attention(normal, normal)])
        normal = layers.LayerNormalization()(x)
        hidden = layers.Dense(16, activation="gelu")(normal)
        x = layers.Add()([x, layers.Dense(8)(layers.Dropout(0.1)(hidden))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(images, layers.Dense(10, activation="softmax")(x))


def convolutions(dtype=None, **options):
    return [
        layers.Conv2D(6, 3, dtype=dtype, **options),
        layers.BatchNormalization(axis=1 if options else -1, dtype=dtype),
        layers.ReLU(dtype=dtype),
        layers.Dropout(0.2, dtype=dtype),
        layers.Flatten(dtype=dtype),
    ]


def small(shape, *body, **options):
    tolerance = 0.02 if options.get("dtype") else 1e-4
    num_classes = options.get("num_classes", 10)
    return Case(sequential(shape, *body, **options), num_classes, True, tolerance)


CASES = {
    "MobileNetV2": first_blocks("MobileNetV2", "block_2_add", to_minus_one, alpha=0.35),
    "ResNet50V2": first_blocks("ResNet50V2", "conv2_block3_out", to_minus_one),
    "ConvNeXtTiny": first_blocks(
        "ConvNeXtTiny", "convnext_tiny_stage_0_block_1_identity", to_bytes
    ),
    "ViT": Case(vision_transformer),
    "LSTM": small((6, 3), layers.LSTM(8)),
    "Conv1D": small(
        (12, 3),
        layers.Conv1D(6, 3, activation="tanh"),
        layers.BatchNormalization(),
        layers.GlobalMaxPooling1D(),
    ),
    "MLP": small((7,), layers.Dense(16, activation="selu"), layers.Dropout(0.2)),
    "channels first": small((3, 8, 8), *convolutions(data_format="channels_first")),
    "5000 classes": small((6, 6, 1), *convolutions(), num_classes=5000),
    "float16": small((8, 8, 3), *convolutions("float16"), dtype="float16"),
    "mixed_float16": small(
        (8, 8, 3), *convolutions("mixed_float16"), dtype="mixed_float16"
    ),
}
WHOLE = {
    "whole MobileNetV2": whole("MobileNetV2", to_minus_one),
    "whole ResNet50V2": whole("ResNet50V2", to_minus_one),
    "whole EfficientNetB0": whole("EfficientNetB0", to_bytes),
    "whole ConvNeXtTiny": whole("ConvNeXtTiny", to_bytes),
}
EVERY = [*CASES, *(pytest.param(name, marks=pytest.mark.release) for name in WHOLE)]


@dataclasses.dataclass(frozen=True)
class Subject:
    """An ensemble of two networks, images, labels and the gradients by hand."""

    case: Case
    ensemble: Ensemble
    x: np.ndarray
    y: np.ndarray
    probs: np.ndarray
    gradients: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=EVERY)
def subject(request):
    case = (CASES | WHOLE)[request.param]
    if request.param == "channels first" and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow cannot convolve channels_first on a CPU")
    keras.utils.set_random_seed(1)
    members = [case.build(), case.build()]
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(4, *members[0].input_shape[1:])).astype("float32")
    y = rng.integers(case.num_classes, size=4)
    answers = [probs_and_gradient(case, member, x, y) for member in members]
    probs, (first, second) = (np.stack(a) for a in zip(*answers, strict=True))
    # -log((p + q) / 2) has the gradient -(p' + q') / (p + q), and -log p: -p' / p.
    weights = probs[:, range(4), y] / probs[:, range(4), y].sum(axis=0)
    weights = weights.reshape(2, 4, *[1] * (x.ndim - 1))
    gradients = {
        "member": first,
        "mean_member": (first + second) / 2,
        "ensemble": weights[0] * first + weights[1] * second,
    }
    return Subject(case, Ensemble(members), x, y, probs.mean(axis=0), gradients)


def probs_and_gradient(case, model, x, y):
    """Return a network's probabilities and the gradients of -log of those of `y`."""

    label = np.eye(case.num_classes, dtype="float32")[y]

    def losses(x):
        probs = ops.cast(model(x, training=False), "float32")
        if case.returns_logits:
            probs = ops.softmax(probs)
        return -ops.sum(ops.log(ops.sum(label * probs, axis=-1))), probs

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss, probs = losses(x)
        return probs.numpy(), tape.gradient(loss, x).numpy()
    import jax

    grad, probs = jax.grad(losses, has_aux=True)(x)
    return np.asarray(probs), np.asarray(grad)


def assert_moved_along(gradient, x_adv, subject):
    """Assert that `x_adv` is FGSM's along a gradient, where it is clearly not 0."""
    is_clear = np.abs(gradient) > subject.case.tolerance * largest(gradient)
    assert is_clear.mean() > 0.5
    want = subject.x + EPS * np.sign(gradient)
    assert_allclose(x_adv[is_clear], want[is_clear], rtol=0, atol=1e-6)


def largest(gradient):
    """Return the largest entry of each image's gradient, which is not 0."""
    sizes = np.abs(gradient).max(axis=tuple(range(1, gradient.ndim)), keepdims=True)
    assert (sizes > 0).all()
    return sizes


def test_ensemble(subject):
    probs = ops.convert_to_numpy(subject.ensemble(subject.x))
    assert probs.shape == (4, subject.case.num_classes)
    assert_allclose(probs, subject.probs, rtol=subject.case.tolerance, atol=1e-6)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.gradient)
def test_gradient(subject, threat):
    grad = gradient(subject.ensemble, threat)(subject.x, subject.y)
    want = subject.gradients[threat.gradient]
    sizes = largest(want)
    tolerance = subject.case.tolerance
    assert_allclose(ops.convert_to_numpy(grad) / sizes, want / sizes, 0, tolerance)


def test_attacks(subject):
    x, y = subject.x, subject.y
    fgsm, bim = adversarial_images(
        subject.ensemble, x, y, threat=Threat("ensemble"), attacks=ATTACKS
    )
    assert_moved_along(subject.gradients["ensemble"], fgsm.x_adv, subject)
    assert not fgsm.zero_gradient.any()
    assert not bim.zero_gradient.any()
    assert_allclose(np.abs(bim.x_adv - x).max(), EPS, rtol=0, atol=1e-6)
    for examples in (fgsm, bim):
        probs = ops.convert_to_numpy(subject.ensemble(examples.x_adv))
        # The whole MobileNetV2, untrained, answers .1 for every class up to rounding.
        assert (probs[range(4), y] <= subject.probs[range(4), y] + 1e-7).all()


def test_adversarial_training(subject):
    x, y = subject.x, subject.y
    network = subject.ensemble[0]
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    robust = AdversarialTraining(copy, eps=EPS)
    loss = keras.losses.SparseCategoricalCrossentropy(subject.case.returns_logits)
    robust.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    x_adv = ops.convert_to_numpy(robust.perturbed(x, y))
    assert_moved_along(subject.gradients["member"], x_adv, subject)
    assert_array_equal(robust(x), network(x))
    history = robust.fit(x, y, batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert (ops.convert_to_numpy(robust(x)) != ops.convert_to_numpy(network(x))).any()


def test_saved_and_loaded(subject, tmp_path):
    subject.ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    assert_array_equal(loaded(subject.x), subject.ensemble(subject.x))
