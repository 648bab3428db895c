import gc
import weakref

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.compiled import gradient
from advens.attacks.fgsm_bim import craft
from advens.attacks.threat import Attack, Threat
from advens.evaluation.evaluate import adversarial_images, evaluate, evaluate_batches
from advens.evaluation.outcomes import Outcomes, join_outcomes
from advens.models.ensemble import Ensemble

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
    """Return which answers are right, asking each model by `predict`."""
    right = [
        np.argmax(model.predict(x, verbose=0), axis=-1) == y
        for model in (*ensemble.members, ensemble)
    ]
    return np.stack(right[:-1]), right[-1]


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
    crafted = craft(gradient(ensemble, threat), x, y, ATTACKS)
    evaluated = evaluate(ensemble, x, y, threat=threat, attacks=ATTACKS)
    for outcomes, adversarial in zip(evaluated, crafted, strict=True):
        x_adv = keras.ops.convert_to_numpy(adversarial.x_adv)
        members, votes = judged(ensemble, x_adv, y)
        assert_array_equal(outcomes.members, members)
        assert_array_equal(outcomes.ensemble, votes)
        zero = keras.ops.convert_to_numpy(adversarial.zero_gradient)
        assert_array_equal(outcomes.zero_gradient, zero)
    # The attack does something, or this test would prove little.
    assert evaluated[0].ensemble.mean() < evaluate(ensemble, x, y)[0].ensemble.mean()


@pytest.mark.parametrize("threat", THREATS)
def test_outcomes_of_each_step(ensemble, images, threat):
    steps = [Attack(f"BIM {n}", 0.2, 0.07, n) for n in range(1, 6)]
    together = evaluate(ensemble, *images, threat=threat, attacks=steps)
    for attack, outcomes in zip(steps, together, strict=True):
        alone = evaluate(ensemble, *images, threat=threat, attacks=[attack])
        assert_same([outcomes], alone)
    assert (together[0].members != together[-1].members).any()


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
    crafted = adversarial_images(ensemble, x, y, **options)
    want = craft(gradient(ensemble, THREATS[2]), x, y, ATTACKS)
    outcomes = evaluate(ensemble, x, y, **options)
    for got, expected, outcome in zip(crafted, want, outcomes, strict=True):
        assert isinstance(got.x_adv, np.ndarray)
        assert_allclose(got.x_adv, expected.x_adv, rtol=0, atol=1e-6)
        assert_array_equal(got.zero_gradient, expected.zero_gradient)
        [judged_alone] = evaluate(ensemble, got.x_adv, y)
        assert_array_equal(judged_alone.ensemble, outcome.ensemble)


def test_batches_are_the_parts_of_the_whole(ensemble, images):
    options = {"threat": THREATS[0], "attacks": ATTACKS}
    batches = list(evaluate_batches(ensemble, *images, **options, batch_size=4))
    # Three batches of one size, of which the last has an image less.
    assert [len(batch[0].ensemble) for batch in batches] == [4, 4, 3]
    joined = [join_outcomes(parts) for parts in zip(*batches, strict=True)]
    assert_same(joined, evaluate(ensemble, *images, **options))


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


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_what_is_compiled_goes_with_its_ensemble(ensemble, images, compute):
    """The members stay, and keep nothing of what attacked them."""
    twin = Ensemble(ensemble.members)
    threat = Threat("mean_member", compute=compute)
    evaluate(twin, *images, threat=threat, attacks=ATTACKS)
    gone = [weakref.ref(twin), weakref.ref(twin.programs)]
    del twin
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_member_is_freed_with_its_ensemble(images):
    member = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    evaluate(Ensemble([member]), *images, threat=Threat("ensemble"), attacks=ATTACKS)
    gone = weakref.ref(member)
    del member
    gc.collect()
    assert gone() is None


def test_a_second_evaluation_compiles_nothing(ensemble, images, monkeypatch):
    twin = Ensemble(ensemble.members)
    options = {"threat": THREATS[1], "attacks": ATTACKS}
    first = evaluate(twin, *images, **options)
    # One for the gradient, one for judging, and three members' inference.
    assert len(twin.programs) == 5
    monkeypatch.setattr(backend, "compile", None)
    assert_same(evaluate(twin, *images, **options), first)


def test_nan_is_no_answer(ensemble, images):
    broken = keras.models.clone_model(ensemble[0])
    broken.set_weights([w * np.nan for w in ensemble[0].get_weights()])
    healthy, both = Ensemble([ensemble[0]]), Ensemble([ensemble[0], broken])
    with pytest.raises(ValueError, match=r"NaN from members\[1\] under no attack"):
        evaluate(both, *images)
    evaluate(healthy, *images)


@pytest.mark.parametrize("source", ["mean_member", "ensemble"])
def test_a_nan_in_a_gradient_is_that_of_its_member(images, source):
    """The answers are numbers: only one member's gradient at black images is not."""
    rng = np.random.default_rng(0)
    members = []
    for root in (False, True):
        x = inputs = keras.Input((4, 4, 1))
        x = keras.layers.Flatten()(x)
        # sqrt(x**2) has the gradient inf * 0 at 0.
        x = keras.ops.sqrt(x**2) if root else x
        member = keras.Model(inputs, keras.layers.Dense(3)(x))
        member.set_weights([rng.normal(size=(16, 3)), rng.normal(size=3)])
        members.append(member)
    x, y = images[0].copy(), images[1]
    x[1], x[7], x[10] = 0, 0, 0
    x[7, 0] = 0.5
    ensemble, threat = Ensemble(members), Threat(source)
    assert evaluate(ensemble, x, y)
    message = (
        r"^The gradient of members\[1\] must be numbers. Received: NaN for 2 different "
        rf"image.s., at step 1 of FGSM under Threat\(gradient='{source}'"
    )
    for function in (evaluate, adversarial_images):
        with pytest.raises(ValueError, match=message):
            function(ensemble, x, y, threat=threat, attacks=ATTACKS)
    evaluate(Ensemble(members[:1]), x, y, threat=threat, attacks=ATTACKS)


class Subclassed(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(units)

    def call(self, inputs):
        return self.dense(self.flatten(inputs))


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (1, "`y` must be labels from 0 to 1. Received: 0 to 2"),
        (2, "`y` must be labels from 0 to 1. Received: 0 to 2"),
    ],
)
def test_subclassed_members_show_their_classes_when_called(images, units, message):
    model = Subclassed(units)
    model(images[0])
    with pytest.raises(ValueError, match=message):
        evaluate(Ensemble([model], outputs="logits"), images[0], np.arange(11) % 3)


def test_a_model_is_no_ensemble(ensemble, images):
    model, attack = ensemble[0], {"threat": Threat("ensemble"), "attacks": ATTACKS}
    for function in (
        lambda: evaluate(model, *images),
        lambda: adversarial_images(model, *images, **attack),
    ):
        with pytest.raises(ValueError, match=r"single model, Ensemble\(\[model\]\)"):
            function()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threat": Threat("ensemble")}, "both or neither"),
        ({"attacks": ATTACKS}, "both or neither"),
        (
            {"batch_size": 0},
            "`batch_size` must be an integer >= 1. Received: batch_size=0",
        ),
    ],
)
def test_bad_options(ensemble, images, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(ensemble, *images, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y[1:]), "int64 of shape .10,. for 11 images"),
        (lambda x, y: (x, np.eye(3)[y]), r"not one-hot .* float64 of shape \(11, 3\)"),
        (lambda x, y: (x, y + 0.5), "float64 of shape"),
        (lambda x, y: (x, 0 * y + 3), "from 0 to 2. Received: 3 to 3"),
        (lambda x, y: (x, 0 * y - 1), "from 0 to 2. Received: -1 to -1"),
        (lambda x, y: (x[:0], y[:0]), r"at least one image.* of shape \(0,"),
        (lambda x, y: (x[0], y[:4]), r"None, 4, 4, 1.* Received: shape \(4, 4, 1\)"),
        (lambda x, y: (x[..., 0], y), r"None, 4, 4, 1.* Received: shape \(11, 4, 4\)"),
        (lambda x, y: (255 * x, y), r"in \[0, 1\].* float32 .* to 2"),
        (lambda x, y: (x - 0.5, y), r"in \[0, 1\].* from -0"),
        (lambda x, y: (x * np.nan, y), "without NaN.* nan"),
        (lambda x, y: ((255 * x).astype("uint8"), y), "Rescaling.* uint8"),
    ],
)
def test_unsuitable_images_and_labels(ensemble, images, change, message):
    attacked = {"threat": Threat("ensemble"), "attacks": ATTACKS}
    # Adversarial images, which leave the box, may be judged without attack.
    for options in [attacked] if r"in \[0, 1\]" in message else [attacked, {}]:
        with pytest.raises(ValueError, match=message):
            evaluate(ensemble, *change(*images), **options)


def test_labels_as_keras_loads_them(ensemble, images):
    x, y = images
    single = Ensemble([ensemble[0]])
    assert_same(evaluate(single, x, y[:, None]), evaluate(single, x, y))
