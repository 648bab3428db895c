import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.compiled import CompiledGradient
from advens.attacks.fgsm_bim import bim, craft
from advens.attacks.gradients import Gradient, uncompiled_gradient
from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import adversarial_images, evaluate
from advens.models.ensemble import Ensemble

LABELS = ["true", "predicted", "repredicted"]


class AlwaysDropping(layers.Dropout):
    """On at inference, too. Keras overrides `Dropout(rate)(x, training=True)`."""

    def call(self, inputs, training=False):
        return super().call(inputs, training=True)


def small(seed=0, *, dropout=None):
    """Return a convolutional network, whose dropout is always on if it has one."""
    rng = np.random.default_rng(seed)
    x = inputs = keras.Input((6, 6, 1))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="tanh")(x))
    if dropout is not None:
        x = AlwaysDropping(0.5, seed=dropout)(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


@pytest.fixture
def data():
    x = np.random.default_rng(1).random((5, 6, 6, 1), np.float32)
    return x, np.array([0, 1, 2, 0, 1])


@pytest.fixture
def traced(monkeypatch):
    """Return a list that grows whenever the Python code of a gradient runs."""
    calls = []
    usual = Gradient.__call__

    def call(self, x, y):
        calls.append(tuple(x.shape))
        return usual(self, x, y)

    monkeypatch.setattr(Gradient, "__call__", call)
    return calls


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("source", ["member", "mean_member", "ensemble"])
def test_it_is_the_gradient(data, source, labels):
    ensemble = Ensemble([small(0), small(1)])
    threat = Threat(source, 1 if source == "member" else None, labels=labels)
    x, y = data
    compiled, usual = (
        CompiledGradient(ensemble, threat),
        uncompiled_gradient(ensemble, threat),
    )
    y_compiled, y_usual = (g.start_labels(x, y) for g in (compiled, usual))
    assert_array_equal(y_compiled, y_usual)
    want = ops.convert_to_numpy(usual(x, y_usual))
    got = compiled(ops.convert_to_tensor(x), y_compiled)
    assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_a_sweep_needs_one_program(data, traced):
    ensemble = Ensemble([small(0), small(1)])
    x, y = data
    robust = []
    for eps in np.linspace(0, 1, 20):
        attacks = [
            Attack("FGSM", eps, eps, 1),
            Attack("BIM", eps, eps / 3, 5, box=eps > 0.5),
            Attack("long BIM", eps, 0.01, int(10 + 100 * eps)),
        ]
        outcomes = evaluate(ensemble, x, y, threat=Threat("ensemble"), attacks=attacks)
        robust.append(np.mean([outcome.ensemble for outcome in outcomes]))
    assert len(traced) == 1
    # A gradient, the judge, and two members' networks.
    assert len(ensemble.programs) == 4
    assert robust[0] > robust[-1]


class Own(keras.Model):
    """A member of the user's own class: nobody knows what it computes."""

    def __init__(self, seed):
        super().__init__()
        self.body = small(seed)

    def call(self, inputs, training=False):
        return self.body(inputs, training=training)


def of_own_class(seed):
    model = Own(seed)
    model(np.zeros((1, 6, 6, 1)))
    return model


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("loss", ["exact", "logits"])
def test_one_program_for_all_members_of_an_architecture(data, traced, labels, loss):
    x, y = (ops.convert_to_tensor(array) for array in data)
    wide = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3)])
    members = [small(0), wide, small(1), small(2), of_own_class(3), of_own_class(4)]
    ensemble = Ensemble(members, outputs=[None] * 4 + ["logits"] * 2)

    def gradients():
        """Return each member's gradient, compiled and not."""
        traced.clear()
        grads = []
        for index in range(len(members)):
            threat = Threat("member", index, labels=labels, loss=loss)
            compiled = CompiledGradient(ensemble, threat)
            grads.append(compiled(x, compiled.start_labels(x, y)))
        count = len(traced)
        for index in range(len(members)):
            threat = Threat("member", index, labels=labels, loss=loss)
            usual = uncompiled_gradient(ensemble, threat)
            want = ops.convert_to_numpy(usual(x, usual.start_labels(x, y)))
            assert np.abs(want).max() > 0.01
            atol = 1e-5 * np.abs(want).max()
            assert_allclose(grads[index], want, rtol=0, atol=atol)
        return count

    # Three share an architecture, and each of the others has its own.
    assert gradients() == 4
    # The weights are those of each call.
    members[0].set_weights(members[3].get_weights())
    members[2].layers[-1].bias.assign([3.0, 0.0, -3.0])
    assert gradients() == 0


def test_a_member_that_becomes_another_has_a_program_of_its_own(data, traced):
    x, y = (ops.convert_to_tensor(array) for array in data)
    ensemble = Ensemble([small(0), small(1)])
    threats = [Threat("member", index) for index in range(2)]

    def count():
        traced.clear()
        for threat in threats:
            got = CompiledGradient(ensemble, threat)(x, y)
            compiled = len(traced)
            want = ops.convert_to_numpy(uncompiled_gradient(ensemble, threat)(x, y))
            traced.pop()
            assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
        return compiled

    assert count() == 1
    ensemble[1].layers[1].activation = keras.activations.sigmoid
    assert count() == 2


def test_a_users_own_program(data, traced):
    """It may contain a compiled gradient, or a plain one, step by step."""
    ensemble = Ensemble([small(0), small(1)])
    threat, attack = Threat("mean_member"), Attack("BIM", 0.3, 0.1, 4)
    x, y = (ops.convert_to_tensor(array) for array in data)
    want = craft(uncompiled_gradient(ensemble, threat), x, y, [attack])[0]

    def program(followed):
        return backend.compile(
            lambda x, y: craft(followed, x, y, [attack])[0], ensemble
        )

    for followed in (
        CompiledGradient(ensemble, threat),
        uncompiled_gradient(ensemble, threat),
    ):
        got = program(followed)(x, y)
        assert_allclose(got.x_adv, want.x_adv, rtol=0, atol=1e-6)
        assert_array_equal(got.zero_gradient, want.zero_gradient)


def test_masks_are_drawn_anew(data):
    """By the attack at every step, and by who judges; again, when the seed is again."""
    x, y = data

    def gradients():
        ensemble = Ensemble([small(0, dropout=3)])
        compiled = CompiledGradient(ensemble, Threat("ensemble"))
        grads = [ops.convert_to_numpy(compiled(x, y)) for _ in range(4)]
        answers = [ensemble(x) for _ in range(2)]
        return [np.ravel(grad) for grad in grads], answers

    first, answers = gradients()
    assert len(np.unique(np.round(first, 5), axis=0)) == 4
    assert np.abs(ops.convert_to_numpy(answers[0] - answers[1])).max() > 1e-3
    again, _ = gradients()
    assert_array_equal(first, again)


def test_attacker_and_judge_do_not_share_masks():
    x = np.full((200, 1, 1, 1), 0.5, "float32")
    y = np.zeros(200, int)
    inputs = keras.Input((1, 1, 1))
    h = layers.Dense(2, use_bias=False)(layers.Flatten()(inputs))
    h = AlwaysDropping(0.5, seed=5)(h)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(h))
    # The logits are z = (m1 - m2) x, with masks m of 0 or 2, and 0.
    model.set_weights([np.array([[1.0, -1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])])
    attacks = [Attack("FGSM", 1, 1, 1)]
    [outcomes] = evaluate(
        Ensemble([model]), x, y, threat=Threat("ensemble"), attacks=attacks
    )
    # Whatever the attack does to x, z is negative for a quarter of new masks. With the
    # attack's own masks, it would be for half of the images: wherever m1 != m2.
    negative = 1 - outcomes.members.mean()
    assert 0.15 < negative < 0.37


@pytest.mark.parametrize("labels", LABELS)
def test_threads(data, labels):
    """The same ensemble and another one; the same threat and another one."""
    x, y = data
    members = [small(0), small(1)]
    # Both members share a program.
    whole = [("mean_member", None), ("ensemble", None)]
    sources = [*whole, ("member", 0), ("member", 1)]

    def jobs():
        ensembles = [Ensemble(members), Ensemble(members[::-1])]
        return [
            (ensemble, Threat(source, index, labels=labels), eps)
            for ensemble in ensembles
            for source, index in sources
            for eps in (0.1, 0.3)
        ]

    def attack(job):
        ensemble, threat, eps = job
        attacks = [Attack("BIM", eps, eps / 2, 3)]
        return adversarial_images(ensemble, x, y, threat=threat, attacks=attacks)[0]

    def attack_by_hand(job):
        ensemble, threat, eps = job
        followed = uncompiled_gradient(ensemble, threat)
        return bim(followed, x, y, eps=eps, step_size=eps / 2, num_steps=3)

    want = [attack(job) for job in jobs()]
    for run in (attack, attack_by_hand):
        barrier = threading.Barrier(len(want))

        def together(job, run=run, barrier=barrier):
            barrier.wait()
            return run(job)

        with ThreadPoolExecutor(len(want)) as pool:
            got = list(pool.map(together, jobs()))
        for in_thread, alone in zip(got, want, strict=True):
            assert_allclose(in_thread.x_adv, alone.x_adv, rtol=0, atol=1e-6)


def test_programs_are_freed_with_their_ensemble(data, monkeypatch):
    """The networks are grey: TensorFlow computes their gradient in a way of its own."""
    gone = []
    usual = Gradient.__call__

    def call(self, x, y):
        grad = usual(self, x, y)
        gone.append(weakref.ref(grad.graph if backend.name() == "tensorflow" else self))
        return grad

    monkeypatch.setattr(Gradient, "__call__", call)
    members = [small(0)]
    ensemble = Ensemble(members)
    attacks = [Attack("BIM", 0.1, 0.1, 2)]
    evaluate(ensemble, *data, threat=Threat("ensemble"), attacks=attacks)
    gc.collect()
    assert [reference() is None for reference in gone] == [False]
    del ensemble
    gc.collect()
    assert [reference() is None for reference in gone] == [True]
