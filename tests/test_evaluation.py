import gc
import weakref

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advens import attacks, evaluation, gradients
from advens.attacks import Attack
from advens.ensemble import Ensemble
from advens.evaluation import (
    Threat,
    adversarial_images,
    evaluate,
    stored_outcomes,
)
from advens.outcomes import Outcomes
from advens.store import Store

ATTACKS = (Attack("FGSM", 0.2, 0.2, 1), Attack("BIM", 0.2, 0.05, 4))
THREATS = (
    Threat("member", 1),
    Threat("mean_member"),
    Threat("mean_member", labels="repredicted"),
    Threat("mean_member", labels="predicted", loss="clipped"),
    Threat("ensemble"),
)
NUM_IMAGES = 11


@pytest.fixture(scope="module")
def ensemble():
    rng = np.random.default_rng(5)
    members = []
    for _ in range(3):
        member = keras.Sequential(
            [
                keras.Input((4, 4, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
                keras.layers.Softmax(),
            ]
        )
        member.set_weights([rng.normal(size=(16, 3)), rng.normal(size=3)])
        members.append(member)
    return Ensemble(members)


@pytest.fixture(scope="module")
def images(ensemble):
    x = np.random.default_rng(6).random((NUM_IMAGES, 4, 4, 1), np.float32)
    # The ensemble is right on all but the last two.
    y = np.argmax(ensemble.predict(x, verbose=0), axis=-1)
    y[-2:] = (y[-2:] + 1) % 3
    return x, y


def judged(ensemble, x, y):
    """Ask each model itself, the slow way."""
    rights = [
        np.argmax(model.predict(x, verbose=0), axis=-1) == y
        for model in (*ensemble.members, ensemble)
    ]
    return np.stack(rights[:-1]), rights[-1]


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        for field in Outcomes._fields:
            assert_array_equal(getattr(a, field), getattr(b, field))


def test_without_attack(ensemble, images):
    [outcomes] = evaluate(ensemble, *images)
    members, votes = judged(ensemble, *images)
    assert_array_equal(outcomes.members, members)
    assert_array_equal(outcomes.ensemble, votes)
    assert_array_equal(outcomes.ensemble, np.arange(NUM_IMAGES) < NUM_IMAGES - 2)
    assert not outcomes.zero_gradient.any()


@pytest.mark.parametrize("threat", THREATS)
def test_attacked_images_are_judged(ensemble, images, threat):
    x, y = images
    crafted = attacks.craft(threat.of(ensemble), x, y, ATTACKS)
    found = evaluate(ensemble, x, y, threat=threat, attacks=ATTACKS)
    for outcomes, adversarial in zip(found, crafted, strict=True):
        x_adv = keras.ops.convert_to_numpy(adversarial.x_adv)
        members, votes = judged(ensemble, x_adv, y)
        assert_array_equal(outcomes.members, members)
        assert_array_equal(outcomes.ensemble, votes)
        zero = keras.ops.convert_to_numpy(adversarial.zero_gradient)
        assert_array_equal(outcomes.zero_gradient, zero)
    # The attack does something, or this test would prove little.
    assert found[0].ensemble.mean() < evaluate(ensemble, x, y)[0].ensemble.mean()


@pytest.mark.parametrize("threat", THREATS)
def test_outcomes_of_each_step(ensemble, images, threat):
    steps = [Attack(f"BIM {n}", 0.2, 0.07, n) for n in range(1, 6)]
    found = evaluate(ensemble, *images, threat=threat, attacks=steps)
    for attack, outcomes in zip(steps, found, strict=True):
        alone = evaluate(ensemble, *images, threat=threat, attacks=[attack])
        assert_same([outcomes], alone)
    assert (found[0].members != found[-1].members).any()


@pytest.mark.parametrize("batch_size", [1, 4, 5, 11, 500])
def test_any_batch_size_gives_the_same(ensemble, images, batch_size):
    options = {"threat": Threat("mean_member"), "attacks": ATTACKS}
    assert_same(
        evaluate(ensemble, *images, **options, batch_size=batch_size),
        evaluate(ensemble, *images, **options, batch_size=2),
    )


@pytest.mark.parametrize("batch_size", [4, 500])
def test_adversarial_images_are_those_that_are_judged(ensemble, images, batch_size):
    x, y = images
    options = {"threat": THREATS[2], "attacks": ATTACKS, "batch_size": batch_size}
    found = adversarial_images(ensemble, x, y, **options)
    want = attacks.craft(THREATS[2].of(ensemble), x, y, ATTACKS)
    outcomes = evaluate(ensemble, x, y, **options)
    for one, other, outcome in zip(found, want, outcomes, strict=True):
        assert isinstance(one.x_adv, np.ndarray)
        assert_allclose(one.x_adv, other.x_adv, rtol=0, atol=1e-6)
        assert_array_equal(one.zero_gradient, other.zero_gradient)
        [judged_alone] = evaluate(ensemble, one.x_adv, y)
        assert_array_equal(judged_alone.ensemble, outcome.ensemble)


def test_zero_gradients_are_counted(images):
    dead = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    dead.set_weights([np.zeros((16, 3)), np.zeros(3)])
    [outcomes] = evaluate(
        Ensemble([dead]), *images, threat=Threat("ensemble"), attacks=ATTACKS[:1]
    )
    assert outcomes.zero_gradient.all()


def test_new_weights_are_seen_by_what_was_compiled(ensemble, images):
    options = {"threat": Threat("ensemble"), "attacks": ATTACKS}
    before = evaluate(ensemble, *images, **options)
    kept = ensemble.get_weights()
    ensemble.set_weights([-w for w in kept])
    changed = evaluate(ensemble, *images, **options)
    ensemble.set_weights(kept)
    assert (changed[0].members != before[0].members).any()
    assert_same(evaluate(ensemble, *images, **options), before)


def test_stored_outcomes_are_computed_once(tmp_path, ensemble, images):
    store, calls = Store(tmp_path), []
    options = {"threat": THREATS[0], "attacks": ATTACKS}

    def load():
        calls.append(1)
        return ensemble

    first = stored_outcomes(store, {"a": 1}, load, *images, **options)
    again = stored_outcomes(store, {"a": 1}, load, *images, **options)
    assert len(calls) == 1
    assert_same(first, evaluate(ensemble, *images, **options))
    assert_same(again, first)
    # Another ensemble, threat or attack is another artefact.
    stored_outcomes(store, {"a": 2}, load, *images, **options)
    stored_outcomes(store, {"a": 1}, load, *images)
    options["attacks"] = ATTACKS[:1]
    stored_outcomes(store, {"a": 1}, load, *images, **options)
    assert len(calls) == 4


def test_interrupted_attack_goes_on(tmp_path, ensemble, images, monkeypatch):
    monkeypatch.setattr(evaluation, "_CHECKPOINT_SECONDS", -1)
    options = {"threat": THREATS[1], "attacks": ATTACKS, "batch_size": 2}
    store, seen = Store(tmp_path), []

    def stop(count):
        seen.append(count)
        if sum(seen) >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored_outcomes(store, {}, lambda: ensemble, *images, **options, on_images=stop)
    seen.clear()
    found = stored_outcomes(
        store, {}, lambda: ensemble, *images, **options, on_images=seen.append
    )
    # The batch in flight is lost; those before it are not attacked again.
    assert seen[0] == 4
    assert sum(seen) == NUM_IMAGES
    assert_same(found, evaluate(ensemble, *images, **options))


def test_attack_that_was_killed_before_its_last_write_ends(
    tmp_path, ensemble, images, monkeypatch
):
    monkeypatch.setattr(evaluation, "_CHECKPOINT_SECONDS", -1)
    options = {"threat": THREATS[1], "attacks": ATTACKS, "batch_size": 2}
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", None)
        with pytest.raises(TypeError):
            stored_outcomes(store, {}, lambda: ensemble, *images, **options)
    found = stored_outcomes(store, {}, lambda: ensemble, *images, **options)
    assert_same(found, evaluate(ensemble, *images, **options))


def test_what_is_compiled_goes_with_its_ensemble(ensemble, images):
    twin = Ensemble(ensemble.members)
    evaluate(twin, *images, threat=THREATS[0], attacks=ATTACKS)
    gone = weakref.ref(twin)
    del twin
    gc.collect()
    assert gone() is None


def test_nan_is_no_answer(ensemble, images):
    ill = keras.models.clone_model(ensemble[0])
    ill.set_weights([w * np.nan for w in ensemble[0].get_weights()])
    healthy, both = Ensemble([ensemble[0]]), Ensemble([ensemble[0], ill])
    with pytest.raises(ValueError, match=r"NaN from members\[1\] under no attack"):
        evaluate(both, *images)
    with pytest.raises(ValueError, match=r"NaN from members\[0, 1\] under FGSM"):
        evaluate(both, *images, threat=Threat("mean_member"), attacks=ATTACKS)
    evaluate(healthy, *images)


class Subclassed(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(units)

    def call(self, inputs):
        return self.dense(self.flatten(inputs))


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (1, r"two classes or more .* members\[0\], which returns \(.*1\)"),
        (2, "`y` must be labels from 0 to 1. Received: 0 to 2"),
    ],
)
def test_subclassed_members_tell_their_classes_when_called(images, units, message):
    model = Subclassed(units)
    model(images[0])
    with pytest.raises(ValueError, match=message):
        evaluate(Ensemble([model], outputs="logits"), images[0], np.arange(11) % 3)


def test_a_model_is_no_ensemble(ensemble, images):
    model = ensemble[0]
    for function in (
        lambda: evaluate(model, *images),
        lambda: gradients.member_gradient(model, 0),
        lambda: gradients.mean_member_gradient(model),
        lambda: gradients.ensemble_gradient(model),
    ):
        with pytest.raises(ValueError, match=r"single model, Ensemble\(\[model\]\)"):
            function()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threat": Threat("ensemble")}, "both or neither"),
        ({"attacks": ATTACKS}, "both or neither"),
        ({"batch_size": 0}, "`batch_size` must be >= 1"),
    ],
)
def test_bad_options(ensemble, images, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(ensemble, *images, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y[1:]), "int64 of shape .10,. for 11 images"),
        (lambda x, y: (x, np.eye(3)[y]), r"no one-hot .* float64 of shape \(11, 3\)"),
        (lambda x, y: (x, y + 0.5), "float64 of shape"),
        (lambda x, y: (x, 0 * y + 3), "from 0 to 2. Received: 3 to 3"),
        (lambda x, y: (x, 0 * y - 1), "from 0 to 2. Received: -1 to -1"),
        (lambda x, y: (x[:0], y[:0]), r"one at least.* of shape \(0,"),
        (lambda x, y: (255 * x, y), r"in \[0, 1\].* float32 .* to 2"),
        (lambda x, y: (x - 0.5, y), r"in \[0, 1\].* from -0"),
        (lambda x, y: (x * np.nan, y), "without NaN.* nan"),
        (lambda x, y: ((255 * x).astype("uint8"), y), "Rescaling.* uint8"),
    ],
)
def test_unsuitable_images_and_labels(ensemble, images, change, message):
    attacked = {"threat": Threat("ensemble"), "attacks": ATTACKS}
    # Without attack, adversarial images may be judged, which leave the box.
    for options in [attacked] if r"in \[0, 1\]" in message else [attacked, {}]:
        with pytest.raises(ValueError, match=message):
            evaluate(ensemble, *change(*images), **options)


def test_worst_case_is_right_after_every_attack():
    rights = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]], bool)
    found = [Outcomes(~right[None], right, ~right) for right in rights]
    assert_array_equal(evaluation.worst_case(found), [True, False, False, False])
    with pytest.raises(ValueError, match="those of one attack at least"):
        evaluation.worst_case([])


def test_labels_as_keras_loads_them(ensemble, images):
    x, y = images
    single = Ensemble([ensemble[0]])
    assert_same(evaluate(single, x, y[:, None]), evaluate(single, x, y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("both",), "`gradient` must be one of"),
        (("member",), "`index` must be given"),
        (("ensemble", 0), "`index` must be given"),
        (("ensemble", None, "wrong"), "`labels` must be one of .*'wrong'"),
        (("ensemble", None, "true", "hinge"), "`loss` must be one of .*'hinge'"),
        (("ensemble", None, "true", "exact", "int8"), "`compute` must be .*'int8'"),
    ],
)
def test_bad_threats(arguments, message):
    with pytest.raises(ValueError, match=message):
        Threat(*arguments)
