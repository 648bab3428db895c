"""Gradients of members that are certain, in float16, random, or not finite."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.gradients import Gradient, uncompiled_gradient
from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import evaluate
from advens.models.ensemble import Ensemble

X = np.random.default_rng(2).uniform(size=(5, 2, 2, 1)).astype("float32")
Y = np.array([0, 1, 2, 1, 0])
GRADIENTS = {
    "Grad. 1": ("member", 1),
    "Grad. 2": ("mean_member",),
    "ensemble": ("ensemble",),
}


def gradient_of(kind, ensemble, **options):
    return uncompiled_gradient(ensemble, Threat(*GRADIENTS[kind], **options))


def per_image(array):
    """Return each image's pixels, divided by the largest."""
    array = np.asarray(array).reshape(len(array), -1)
    return array / np.abs(array).max(axis=-1, keepdims=True)


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


@pytest.mark.parametrize("gap", [50, 88, 100, 104, 150, 1000])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_exact_however_certain_the_members_are(linear, kind, gap):
    """Beyond a gap of 104, even exp(-gap) is 0 in float32."""
    ensemble, kernels = linear[0], linear[1]
    biases = np.array([[gap, 0, 0], [gap + 1.5, 0, 2], [gap + 0.5, 1, 0]])
    for member, kernel, bias in zip(ensemble, kernels, biases, strict=True):
        member.set_weights([kernel, bias])
    log_probs = log_softmax(X.reshape(5, -1) @ kernels + biases[:, None])
    others = log_probs[..., 1:]
    log_errors = np.logaddexp.reduce(others, axis=-1)  # log(1 - p(0))
    towards_others = np.exp(others - log_errors[..., None])[..., None, :]
    grads = ((kernels[..., 1:] - kernels[..., :1])[:, None] * towards_others).sum(-1)
    if kind == "Grad. 1":
        grads, log_errors = grads[1:2], log_errors[1:2]
    # The shares p_i(0) / sum(p(0)) of the ensemble gradient are 1/3, too.
    weights = np.exp(log_errors - log_errors.max(axis=0)) / len(grads)
    want = (weights[..., None] * grads).sum(axis=0)
    got = np.array(gradient_of(kind, ensemble)(X, np.zeros(5, int))).reshape(5, -1)
    # Logits of 1000 are rounded to 6e-5.
    assert_allclose(per_image(got), per_image(want), rtol=0, atol=2e-4)
    # The size is right as long as float32 can hold it with all pixels.
    if gap == 50:
        largest = np.exp(log_errors.max(axis=0))[:, None]
        assert_allclose(got / largest, want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", GRADIENTS)
def test_two_classes_as_of_one_output(kind):
    """Of logits (0, z), the gradient is -(1 - p_y) z' for y = 1, and that of z else."""
    kernel = np.array([1, -2, 0.5, 3])
    members = [two_classes(kernel, bias) for bias in (1, 200, 200)]
    x, y = X[:2], np.array([0, 1])
    z = x.reshape(2, -1) @ kernel
    got = np.array(gradient_of(kind, Ensemble(members))(x, y)).reshape(2, 4)
    assert_array_equal(np.sign(got), [np.sign(kernel), -np.sign(kernel)])
    if kind == "Grad. 2":  # the members that are certain add 1, or exp(-200)
        errors = (1 / (1 + np.exp(-z[0] - 1)) + 2, -1 / (1 + np.exp(z[1] + 1)))
        assert_allclose(got, np.outer(errors, kernel) / 3, rtol=1e-4, atol=0)


def two_classes(kernel, bias, scale=1, policy="float32"):
    """Return a member of logits (0, scale * (x @ kernel + bias))."""
    dense = layers.Dense(2, dtype=policy)
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), dense])
    kernel = np.stack([np.zeros(4), scale * kernel], axis=-1)
    dense.set_weights([kernel, np.array([0, scale * bias])])
    return model


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("scale", [1, 1e3])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_accuracy_of_linear_members_however_certain(kind, scale, policy):
    """All members fall where FGSM's step is larger than the smallest margin."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(200, 2, 2, 1)).astype("float32")
    kernel, bias = np.array([1, -2, 0.5, 3]), -1.2
    members = [two_classes(k * kernel, k * bias, scale, policy) for k in (0.5, 1, 2)]
    margins = x.reshape(200, -1) @ kernel + bias
    y = (margins > 0).astype(int)
    eps = 0.1
    want = np.abs(margins) > eps * np.abs(kernel).sum()
    threat = Threat(*GRADIENTS[kind])
    attacks = [Attack("FGSM", eps, eps, 1), Attack("BIM", eps, eps / 4, 4)]
    for outcomes in evaluate(Ensemble(members), x, y, threat=threat, attacks=attacks):
        # Float16 rounds images: a few are judged otherwise.
        wrong = (outcomes.ensemble != want).mean()
        assert wrong <= (0.02 if policy == "mixed_float16" else 0)
        assert not outcomes.zero_gradient.any()
    assert 0.2 < want.mean() < 0.9


def test_a_member_without_a_gradient_does_not_hide_the_others(linear):
    """Member 0 always says (1/3, 1/3, 1/3), with a weight of 2/3; the others' e^-200.

    The framework's gradient is exactly zero, so is that of a loss scaled by its size.
    """
    ensemble, kernels = linear[0], linear[1].copy()
    kernels[0] = 0
    for member, kernel, z in zip(ensemble, kernels, (0, 200, 300), strict=True):
        member.set_weights([kernel, np.array([z, 0, -50])])
    want = kernels[1, :, 1] - kernels[1, :, 0]
    for kind in ("Grad. 2", "ensemble"):
        got = gradient_of(kind, ensemble)(X, np.zeros(5, int))
        assert_allclose(per_image(got), per_image(np.tile(want, (5, 1))), 0, 1e-6)
    got = uncompiled_gradient(ensemble, Threat("member", 0))(X, np.zeros(5, int))
    assert_array_equal(got, np.zeros_like(X))


class Subclassed(keras.Model):
    """A model that cannot be copied."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def call(self, inputs):
        return self.body(inputs)


def tanh_members(policy, scale):
    """Return three members; `scale` multiplies their logits."""
    members, rng = [], np.random.default_rng(3)
    for _ in range(3):
        body = [
            layers.Conv2D(3, 2, activation="tanh", dtype=policy),
            layers.Flatten(dtype=policy),
            layers.Dense(4, dtype=policy),
        ]
        member = keras.Sequential([keras.Input((5, 5, 2)), *body])
        *conv, kernel, bias = [rng.normal(size=w.shape) for w in member.weights]
        member.set_weights([*conv, scale * kernel, scale * bias])
        members.append(member)
    return members


@pytest.mark.parametrize("wrapper", [lambda member: member, Subclassed])
@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
@pytest.mark.parametrize("scale", [1, 10, 50])
def test_members_in_float16(images, scale, policy, wrapper):
    """The logits lie 4 to 200 apart; float16 ends at exp(-17)."""
    x = images[0]
    single = Ensemble(tanh_members("float32", scale))
    half = [wrapper(member) for member in tanh_members(policy, scale)]
    for member in half:
        member(x)
    half = Ensemble(half, outputs="logits")
    y = np.argmax(single(x), axis=-1)
    for kind in GRADIENTS:
        want, got = (per_image(gradient_of(kind, e)(x, y)) for e in (single, half))
        assert (np.sign(got) == np.sign(want)).mean() > 0.97
        if kind == "Grad. 1":  # the others depend on the size of logits, too
            assert_allclose(got, want, rtol=0, atol=0.02)


class AlwaysOn(layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


@pytest.mark.parametrize("compute", ["eager", "compiled"])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_mean_over_draws(kind, compute):
    """The gradients of a dropout that is always on, with all its masks worked out."""
    kernel, rate, num_images, num_draws = np.array([3, -1.0]), 0.5, 1000, 16
    members = []
    for seed in range(2):
        inputs = keras.Input((2, 1, 1))
        hidden = AlwaysOn(rate, seed=seed)(layers.Flatten()(inputs))
        dense = layers.Dense(2)
        members.append(keras.Model(inputs, dense(hidden)))
        dense.set_weights([np.stack([np.zeros(2), kernel], axis=-1), np.zeros(2)])
    image = np.array([0.5, 0.25])
    masks = np.array([[0, 0], [0, 2], [2, 0], [2, 2]])
    probs = 1 / (1 + np.exp(-(masks * image) @ kernel))
    grads = -(1 - probs)[:, None] * masks * kernel
    weights = probs / probs.sum() if kind == "ensemble" else np.full(4, 0.25)
    want = weights @ grads
    spread = np.sqrt(weights @ (grads - want) ** 2)

    ensemble = Ensemble(members)
    followed = gradient_of(kind, ensemble, num_draws=num_draws)
    call = backend.compile(followed, ensemble) if compute == "compiled" else followed
    x = ops.convert_to_tensor(np.tile(image, (num_images, 1)), "float32")
    x = ops.reshape(x, (-1, 2, 1, 1))
    got = np.array(call(x, ops.ones(num_images, "int32"))).reshape(-1, 2)
    assert_allclose(got.mean(axis=0), want, rtol=0, atol=0.02)
    # The spread is that of as many draws, each with masks of its own.
    draws = num_draws * (1 if kind == "Grad. 1" else 2)
    if kind != "ensemble":
        assert_allclose(got.std(axis=0), spread / draws**0.5, rtol=0.1, atol=0)


def test_predictions_from_several_draws():
    """Of draws (.98, .01, .01), (.2, .6, .2) and (.2, .6, .2) class 0 leads."""
    draws = np.log([[0.98, 0.01, 0.01], [0.2, 0.6, 0.2], [0.2, 0.6, 0.2]])
    turns = [itertools.cycle(draws), itertools.cycle(draws[::-1] + [0, 0, 5])]
    members = {
        i: lambda x, turn=turn: ops.convert_to_tensor([next(turn)] * 2, "float32")
        for i, turn in enumerate(turns)
    }
    # The second member's class is 2, and of 2 times 3 draws (.46, .41, .13) and
    # nearly (0, 0, 1) it is 2, too.
    for source, want in (("mean_member", [[0, 0], [2, 2]]), ("ensemble", [[2, 2]])):
        followed = Gradient(members, source, "predicted", num_draws=3)
        assert_array_equal(followed.start_labels(X[:2], Y[:2]), want)
    once = Gradient(members, labels="predicted", num_draws=1)
    got = [np.array(once.start_labels(X[:2], Y[:2]))[0, 0] for _ in range(3)]
    assert got == [0, 1, 1]


@pytest.mark.parametrize("loss", ["exact", "logits", "clipped"])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_several_draws_of_members_without_randomness(convs, images, kind, loss):
    once, thrice = (
        gradient_of(kind, convs, loss=loss, num_draws=num_draws)(*images)
        for num_draws in (1, 3)
    )
    assert_allclose(thrice, once, rtol=1e-5, atol=1e-6)


def with_root(kernel):
    """Return a member of logits (0, sum(kernel * x ** (1 / 2.2)))."""
    inputs = keras.Input((2, 2, 1))
    dense = layers.Dense(2)
    outputs = dense(ops.power(layers.Flatten()(inputs), 1 / 2.2))
    dense.set_weights([np.stack([np.zeros(4), kernel], axis=-1), np.zeros(2)])
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    ("labels", "loss"),
    [("true", "exact"), ("predicted", "logits"), ("repredicted", "clipped")],
)
def test_members_with_nan(labels, loss):
    """The root's slope at 0 is infinite, and times a weight of 0 it is NaN."""
    fine, infinite, nan = [1, 1, 1, 1], [-1, 1, 1, 1], [0, 1, 1, 1]
    x = X[:2].copy()
    x[1, 0, 0] = 0
    y = Y[:2]
    members = [two_classes(np.array(fine), 0), with_root(nan), with_root(infinite)]
    options = {"labels": labels, "loss": loss}

    def nan_members(x, threat, members=members):
        followed = uncompiled_gradient(Ensemble(members), threat)
        return followed.nan_members(x, followed.start_labels(x, y))

    for kind in ("Grad. 2", "ensemble"):
        threat = Threat(*GRADIENTS[kind], **options)
        assert nan_members(x, threat) == [1, 2]
        assert nan_members(x, threat, members[:2]) == [1]
        assert nan_members(X[:2], threat) == []
        assert np.isnan(uncompiled_gradient(Ensemble(members), threat)(x, y)).any()
    assert nan_members(x, Threat("member", 1, **options)) == [1]
    assert nan_members(x, Threat("member", 0, **options)) == []


def test_infinities_that_cancel():
    x = np.zeros((1, 2, 2, 1), "float32")
    members = [with_root([1, 1, 1, 1]), with_root([-1, -1, -1, -1])]
    followed = uncompiled_gradient(Ensemble(members), Threat("mean_member"))
    assert np.isnan(followed(x, Y[:1])).all()
    assert followed.nan_members(x, Y[:1]) == [0, 1]
    # Alone, infinity has a sign.
    alone = uncompiled_gradient(Ensemble(members), Threat("member", 0))
    assert_array_equal(np.sign(alone(x, Y[:1])), np.ones_like(x))
