import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import paper
from advens.attacks import Attack, bim, craft, fgsm, paper_attacks
from advens.ensemble import Ensemble
from advens.gradients import (
    Gradient,
    compiled,
    ensemble_gradient,
    mean_member_gradient,
    member_gradient,
)
from advens.logits import logits_model

X = np.random.default_rng(3).uniform(size=(6, 2, 2, 1)).astype("float32")
X[0], X[1] = 0, 1
Y = np.array([0, 1, 2, 1, 0, 2])
ATTACKS = [
    Attack("FGSM", 0.3, 0.3, 1),
    Attack("BIM", 0.2, 0.025, 8),
    Attack("BIM in the box", 0.2, 0.025, 8, box=True),
    Attack("BIM at the ball", 0.2, 0.15, 5),
    Attack("BIM inside the ball", 3, 0.6, 4),
]


def run(attack, gradient, x=X, y=Y):
    return craft(gradient, x, y, [attack])[0]


def numpy_bim(linear, index, attack, y):
    """Run BIM on linear member `index`, in float64; `y` maps its probs to labels."""
    kernel, bias = linear[1][index], linear[2][index]
    x0 = X.reshape(len(X), -1).astype("float64")
    x = x0.copy()
    for _ in range(attack.num_steps):
        exp = np.exp(x @ kernel + bias)
        probs = exp / exp.sum(axis=1, keepdims=True)
        grad = (probs - np.eye(3)[y(probs)]) @ kernel.T
        x = x + attack.step_size * np.sign(grad)
        x = np.minimum(np.maximum(x, x0 - attack.eps), x0 + attack.eps)
        if attack.box:
            x = np.minimum(np.maximum(x, 0), 1)
    return x.reshape(X.shape)


def test_by_hand():
    member = keras.Sequential(
        [keras.Input((1, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    # Class 1 grows with the first pixel and falls with the second; the third is idle.
    kernel = np.array([[1, 3], [2, -1], [0, 0]])
    member.set_weights([kernel, np.zeros(2)])
    gradient = member_gradient(Ensemble([member]), 0)
    x = np.array([0.5, 0.1, 0.9], "float32").reshape(1, 1, 3, 1)
    for y, want in ((0, [0.8, -0.2, 0.9]), (1, [0.2, 0.4, 0.9])):
        got = fgsm(gradient, x, np.array([y]), eps=0.3).x_adv
        assert_allclose(np.ravel(got), want, rtol=0, atol=1e-6)
    settings = {"eps": 0.25, "step_size": 0.1, "num_steps": 3}
    got = bim(gradient, x, np.array([0]), **settings).x_adv
    assert_allclose(np.ravel(got), [0.75, -0.15, 0.9], rtol=0, atol=1e-6)
    got = bim(gradient, x, np.array([0]), **settings, box=True).x_adv
    assert_allclose(np.ravel(got), [0.75, 0, 0.9], rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("index", range(3))
def test_equals_independent_loop(linear, attack, index):
    got = run(attack, member_gradient(linear[0], index))
    want = numpy_bim(linear, index, attack, lambda probs: Y)
    assert_allclose(got.x_adv, want, rtol=0, atol=1e-5)
    assert not np.any(got.zero_gradient)


@pytest.mark.parametrize("box", [False, True])
def test_ball_and_box(convs, images, box):
    x, y = images
    x = np.round(x)
    gradient = mean_member_gradient(convs)
    for eps, step_size, num_steps in ((0.3, 0.3, 1), (0.2, 0.025, 8), (0.1, 0.07, 4)):
        got = bim(
            gradient, x, y, eps=eps, step_size=step_size, num_steps=num_steps, box=box
        ).x_adv
        assert ops.dtype(got) == "float32"
        change = np.abs(got - x)
        assert_allclose(change.max(), eps, rtol=0, atol=1e-6)
        assert (np.min(got) >= 0 and np.max(got) <= 1) == box


@pytest.mark.parametrize("box", [False, True])
def test_eps_zero_is_the_identity(linear, box):
    gradient = ensemble_gradient(linear[0])
    for settings in (
        {"step_size": 0.1, "num_steps": 3},
        {"step_size": 0, "num_steps": 1},
    ):
        got = bim(gradient, X, Y, eps=0, **settings, box=box)
        assert_array_equal(got.x_adv, X)
    assert_array_equal(fgsm(gradient, X, Y, eps=0, box=box).x_adv, X)


@pytest.mark.parametrize("box", [False, True])
def test_fgsm_is_bim_with_one_step(convs, images, box):
    gradient = ensemble_gradient(convs)
    one_step = bim(gradient, *images, eps=0.3, step_size=0.3, num_steps=1, box=box)
    for got in (
        fgsm(gradient, *images, eps=0.3, box=box),
        bim(gradient, *images, eps=0.3, step_size=2, num_steps=1, box=box),
    ):
        assert_allclose(got.x_adv, one_step.x_adv, rtol=0, atol=1e-7)
    want = images[0] + 0.3 * np.sign(gradient(*images))
    want = np.clip(want, 0, 1) if box else want
    assert_allclose(one_step.x_adv, want, rtol=0, atol=1e-6)


def test_craft_equals_each_attack_alone(convs, images):
    gradient = mean_member_gradient(convs)
    got = craft(gradient, *images, ATTACKS)
    assert len(got) == len(ATTACKS)
    for attack, together in zip(ATTACKS, got, strict=True):
        alone = run(attack, gradient, *images)
        assert_array_equal(together.x_adv, alone.x_adv)
        assert_array_equal(together.zero_gradient, alone.zero_gradient)
    assert craft(gradient, *images, []) == []


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("labels", ["true", "predicted", "repredicted"])
def test_every_iterate_equals_bim_that_stops_there(convs, images, labels, box):
    gradient = mean_member_gradient(convs, labels=labels)
    settings = {"eps": 0.2, "step_size": 0.08, "box": box}
    # In any order; the ball binds from the third step on.
    walk = [Attack(f"BIM {n}", num_steps=n, **settings) for n in (5, 1, 2, 4, 3)]
    got = craft(gradient, *images, walk)
    for attack, iterate in zip(walk, got, strict=True):
        alone = bim(gradient, *images, num_steps=attack.num_steps, **settings)
        assert_array_equal(iterate.x_adv, alone.x_adv)
        assert_array_equal(iterate.zero_gradient, alone.zero_gradient)
    assert len(np.unique([iterate.x_adv for iterate in got], axis=0)) == 5


def test_iterates_need_no_more_gradients_than_the_last_one():
    calls = []
    walk = [Attack("BIM", 1, 0.1, n) for n in (3, 5, 1, 2, 5)]
    got = craft(lambda x, y: calls.append(y) or x, X, Y, walk)
    assert len(calls) <= 5
    assert_array_equal(got[1].x_adv, got[4].x_adv)


def test_zero_gradients_are_those_up_to_the_iterate():
    # The gradient of an image vanishes where the walk has come to this far.
    at = np.array([9, 0, 0.1, 0.2], "float32").reshape(4, 1, 1, 1)

    def gradient(x, y):
        return ops.cast(ops.abs(x - at) > 0.01, "float32")

    walk = [Attack("BIM", 1, 0.1, n) for n in (1, 2, 3)]
    x = np.zeros((4, 2, 2, 1), "float32")
    for n, got in enumerate(craft(gradient, x, Y[:4], walk), start=1):
        assert_array_equal(np.flatnonzero(got.zero_gradient), range(1, n + 1))


def test_craft_shares_the_first_gradient():
    calls = []
    craft(lambda x, y: calls.append(y) or x, X, Y, ATTACKS[:1] * 3)
    assert len(calls) == 1


def test_whole_budget_walk_needs_no_clip():
    """With num_steps * step_size == eps no walk can leave the ball."""

    def gradient(x, y):
        # The first pixel turns back at .05 above its start 0; the others never do.
        turn = np.array([0.05, 9, 9, 9]).reshape(2, 2, 1)
        return ops.convert_to_tensor(turn, "float32") - x

    x = np.zeros((1, 2, 2, 1), "float32")
    settings = {"step_size": 0.025, "num_steps": 8}
    got, free = (bim(gradient, x, Y[:1], eps=e, **settings).x_adv for e in (0.2, 1))
    assert_allclose(got, free, rtol=0, atol=1e-6)
    assert_allclose(np.ravel(got)[1:], 0.2, rtol=0, atol=1e-6)
    assert np.ravel(got)[0] < 0.1
    # The ball binds where the steps reach past it.
    got = bim(gradient, x, Y[:1], eps=0.15, **settings).x_adv
    assert_allclose(np.ravel(got)[1:], 0.15, rtol=0, atol=1e-6)


def test_zero_gradient_marks_images_that_stood_still():
    # Steps 1 to 4 find moving pixels at 0, .1, .2 and .3. A row an image: where the
    # gradient of its pixels vanishes. In row 5 one pixel alone stands still.
    at = np.repeat([[9], [0], [0.1], [0.3], [0.4], [9], [9]], 4, axis=1)
    at[5, 0] = 0
    at = at.reshape(7, 2, 2, 1).astype("float32")
    last = np.eye(7, dtype="float32")[6].reshape(7, 1, 1, 1)

    def gradient(x, y):
        grad = ops.cast(ops.abs(x - at) > 0.01, "float32")
        # The last image sets off at the second step, when the first one has moved.
        return grad * ops.where(last > 0, ops.cast(x[0] > 0.05, "float32"), 1.0)

    for num_steps, want in ((1, [1, 6]), (3, [1, 2, 6]), (4, [1, 2, 3, 6])):
        attack = Attack("BIM", 1, 0.1, num_steps)
        got = run(attack, gradient, np.zeros_like(at))
        assert_array_equal(np.flatnonzero(got.zero_gradient), want)
        moved = np.minimum(at, 0.1 * (num_steps - last))
        assert_allclose(got.x_adv, moved, rtol=0, atol=1e-6)


def test_images_of_another_scale_are_no_floats(linear):
    gradient = ensemble_gradient(linear[0])
    with pytest.raises(ValueError, match="floats in .0, 1.. Received: dtype uint8"):
        fgsm(gradient, (255 * X).astype("uint8"), Y, eps=0.1)


def test_predicted_labels_are_held_and_repredicted_ones_follow(linear):
    attack = Attack("BIM", 0.5, 0.1, 5)
    for index in range(3):
        start = np.argmax(linear[0].member_logits(X, index), axis=-1)
        held, followed, true = (
            run(attack, member_gradient(linear[0], index, labels=labels)).x_adv
            for labels in ("predicted", "repredicted", "true")
        )
        want = numpy_bim(linear, index, attack, lambda _, start=start: start)
        assert_allclose(held, want, rtol=0, atol=1e-5)
        want = numpy_bim(linear, index, attack, lambda probs: probs.argmax(axis=1))
        assert_allclose(followed, want, rtol=0, atol=1e-5)
        assert len(np.unique([held, followed, true], axis=0)) == 3


@pytest.mark.parametrize("labels", ["true", "predicted", "repredicted"])
@pytest.mark.parametrize("gradient", [mean_member_gradient, ensemble_gradient])
def test_batches_and_compilation_change_nothing(convs, images, gradient, labels):
    x, y = images
    gradient = gradient(convs, labels=labels)
    want = run(ATTACKS[1], gradient, x, y)
    fast = compiled(lambda x, y: run(ATTACKS[1], gradient, x, y), convs)
    for size in (1, 3, 6):
        parts = [
            fast(*(ops.convert_to_tensor(a[i : i + size]) for a in (x, y)))
            for i in range(0, 6, size)
        ]
        got = np.concatenate([part.x_adv for part in parts])
        assert_allclose(got, want.x_adv, rtol=0, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="ART needs TensorFlow here"
)
@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if not a.box], ids=lambda a: a.name
)
def test_equals_art(convs, images, attack):
    from art.attacks.evasion import BasicIterativeMethod, FastGradientMethod
    from art.estimators.classification import TensorFlowV2Classifier

    x, y = images
    classifier = TensorFlowV2Classifier(
        logits_model(convs[1]),
        nb_classes=4,
        input_shape=(5, 5, 2),
        loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    options = {"eps": attack.eps, "eps_step": attack.step_size}
    if attack.num_steps == 1:
        peer = FastGradientMethod(classifier, **options)
    else:
        peer = BasicIterativeMethod(
            classifier, **options, max_iter=attack.num_steps, verbose=False
        )
    got = run(attack, member_gradient(convs, 1), x, y).x_adv
    assert_allclose(got, peer.generate(x, np.eye(4)[y]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_labels", [1, 6])
def test_one_hot_vectors_are_no_labels_of_classifiers(num_labels):
    """Of as many images as classes and members, their shape does not tell them."""
    gradient = Gradient(lambda x: ops.zeros((6, 6, 6)))
    for one_hot in (np.eye(6)[Y], np.eye(6, dtype=int)[Y]):
        with pytest.raises(ValueError, match=r"no one-hot .* of shape \(., 6\)"):
            fgsm(gradient, X[:num_labels], one_hot[:num_labels], eps=0.1)


def test_labels_as_keras_loads_them(linear):
    gradient = ensemble_gradient(linear[0])
    column = fgsm(gradient, X, Y[:, None], eps=0.1)
    assert_array_equal(column.x_adv, fgsm(gradient, X, Y, eps=0.1).x_adv)


def test_the_box_is_that_of_the_images(linear):
    gradient = ensemble_gradient(linear[0])
    with pytest.raises(ValueError, match=r"box=True clips. Received: 0.0 to 255.0"):
        fgsm(gradient, 255 * X, Y, eps=8, box=True)
    fgsm(gradient, 255 * X, Y, eps=8)


@pytest.mark.parametrize("name", ["eps", "step_size", "num_steps"])
@pytest.mark.parametrize("value", [-1, -0.1, np.nan])
def test_settings_out_of_range(name, value):
    settings = {"eps": 0.2, "step_size": 0.1, "num_steps": 2, name: value}
    right = "an integer >= 1" if name == "num_steps" else ">= 0"
    message = f"`{name}` must be {right}. Received: {name}={value}$"
    with pytest.raises(ValueError, match=message):
        Attack("BIM", **settings)
    with pytest.raises(ValueError, match=message):
        bim(lambda x, y: x, X, Y, **settings)


def test_no_steps_and_negative_fgsm():
    for value in (0, 8.0):
        with pytest.raises(ValueError, match=f"must be an integer >= 1. .*={value}$"):
            Attack("BIM", 0.2, 0.1, value)
    with pytest.raises(ValueError, match="`eps` must be >= 0. .*=-0.3$"):
        fgsm(lambda x, y: x, X, Y, eps=-0.3)


def test_paper_attacks():
    fgsm, bim = paper_attacks("cifar10", box=True, bim_num_steps=3)
    assert (fgsm.name, fgsm.eps, fgsm.step_size, fgsm.num_steps) == (
        "FGSM",
        0.03,
        0.03,
        1,
    )
    assert (bim.name, bim.eps, bim.step_size, bim.num_steps) == ("BIM", 0.02, 0.0025, 3)
    assert fgsm.box
    assert paper_attacks("mnist", fgsm_eps=0.1)[0].step_size == 0.1
    for name in paper.ATTACKS:
        bim = paper_attacks(name)[1]
        assert bim.num_steps * bim.step_size == pytest.approx(bim.eps, rel=1e-12)
