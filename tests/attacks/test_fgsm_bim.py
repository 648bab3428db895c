import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.compiled import gradient
from advens.attacks.fgsm_bim import bim, craft, fgsm, iterates
from advens.attacks.gradients import Gradient
from advens.attacks.threat import Attack, Threat
from advens.models.ensemble import Ensemble
from advens.models.logits import logits_model

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
LABELS = ["true", "predicted", "repredicted"]


def run(attack, followed, x=X, y=Y):
    return craft(followed, x, y, [attack])[0]


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
    # Class 1 grows with the first pixel and falls with the second. The third pixel
    # changes nothing.
    kernel = np.array([[1, 3], [2, -1], [0, 0]])
    member.set_weights([kernel, np.zeros(2)])
    followed = gradient(Ensemble([member]), Threat("member", 0))
    x = np.array([0.5, 0.1, 0.9], "float32").reshape(1, 1, 3, 1)
    for y, want in ((0, [0.8, -0.2, 0.9]), (1, [0.2, 0.4, 0.9])):
        got = fgsm(followed, x, np.array([y]), eps=0.3).x_adv
        assert_allclose(np.ravel(got), want, rtol=0, atol=1e-6)
    settings = {"eps": 0.25, "step_size": 0.1, "num_steps": 3}
    got = bim(followed, x, np.array([0]), **settings).x_adv
    assert_allclose(np.ravel(got), [0.75, -0.15, 0.9], rtol=0, atol=1e-6)
    got = bim(followed, x, np.array([0]), **settings, box=True).x_adv
    assert_allclose(np.ravel(got), [0.75, 0, 0.9], rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("index", range(3))
def test_equals_an_independent_loop(linear, attack, index):
    got = run(attack, gradient(linear[0], Threat("member", index)))
    want = numpy_bim(linear, index, attack, lambda probs: Y)
    assert_allclose(got.x_adv, want, rtol=0, atol=1e-5)
    assert not np.any(got.zero_gradient)


@pytest.mark.parametrize("box", [False, True])
def test_ball_and_box(convs, images, box):
    x, y = images
    x = np.round(x)
    followed = gradient(convs, Threat("mean_member"))
    for eps, step_size, num_steps in ((0.3, 0.3, 1), (0.2, 0.025, 8), (0.1, 0.07, 4)):
        got = bim(
            followed, x, y, eps=eps, step_size=step_size, num_steps=num_steps, box=box
        ).x_adv
        assert ops.dtype(got) == "float32"
        change = np.abs(got - x)
        assert_allclose(change.max(), eps, rtol=0, atol=1e-6)
        assert (np.min(got) >= 0 and np.max(got) <= 1) == box


@pytest.mark.parametrize("box", [False, True])
def test_eps_zero_is_the_identity(linear, box):
    followed = gradient(linear[0], Threat("ensemble"))
    for settings in (
        {"step_size": 0.1, "num_steps": 3},
        {"step_size": 0, "num_steps": 1},
    ):
        got = bim(followed, X, Y, eps=0, **settings, box=box)
        assert_array_equal(got.x_adv, X)
    assert_array_equal(fgsm(followed, X, Y, eps=0, box=box).x_adv, X)


@pytest.mark.parametrize("box", [False, True])
def test_fgsm_is_bim_with_one_step(convs, images, box):
    followed = gradient(convs, Threat("ensemble"))
    one_step = bim(followed, *images, eps=0.3, step_size=0.3, num_steps=1, box=box)
    for got in (
        fgsm(followed, *images, eps=0.3, box=box),
        bim(followed, *images, eps=0.3, step_size=2, num_steps=1, box=box),
    ):
        assert_allclose(got.x_adv, one_step.x_adv, rtol=0, atol=1e-7)
    want = images[0] + 0.3 * np.sign(followed(*images))
    want = np.clip(want, 0, 1) if box else want
    assert_allclose(one_step.x_adv, want, rtol=0, atol=1e-6)


def test_craft_equals_each_attack_alone(convs, images):
    followed = gradient(convs, Threat("mean_member"))
    got = craft(followed, *images, ATTACKS)
    assert len(got) == len(ATTACKS)
    for attack, together in zip(ATTACKS, got, strict=True):
        alone = run(attack, followed, *images)
        assert_array_equal(together.x_adv, alone.x_adv)
        assert_array_equal(together.zero_gradient, alone.zero_gradient)
    assert craft(followed, *images, []) == []


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("labels", LABELS)
def test_every_iterate_equals_bim_that_stops_there(convs, images, labels, box):
    followed = gradient(convs, Threat("mean_member", labels=labels))
    settings = {"eps": 0.2, "step_size": 0.08, "box": box}
    # In any order; the ball binds from the third step on.
    ends = (5, 1, 2, 4, 3)
    attacks = [Attack(f"BIM {n}", num_steps=n, **settings) for n in ends]
    together = craft(followed, *images, attacks)
    walked = iterates(followed, *images, attacks[1], ends=ends)
    assert len(together) == len(walked) == 5
    for n, crafted, iterate in zip(ends, together, walked, strict=True):
        alone = bim(followed, *images, num_steps=n, **settings)
        for got in (crafted, iterate):
            assert_array_equal(got.x_adv, alone.x_adv)
            assert_array_equal(got.zero_gradient, alone.zero_gradient)
    assert len(np.unique([iterate.x_adv for iterate in walked], axis=0)) == 5


def test_iterates_of_each_reading_of_the_labels_differ(convs, images):
    attack = Attack("BIM", 0.5, 0.1, 1)
    last = []
    for labels in LABELS:
        followed = gradient(convs, Threat("mean_member", labels=labels))
        last += iterates(followed, *images, attack, ends=[5])
    assert len(np.unique([iterate.x_adv for iterate in last], axis=0)) == 3


def test_iterates_need_no_more_gradients_than_the_last_one():
    ends = (3, 5, 1, 2, 5)
    attacks = [Attack("BIM", 1, 0.1, n) for n in ends]
    for walk in (
        lambda followed: craft(followed, X, Y, attacks),
        lambda followed: iterates(followed, X, Y, attacks[0], ends=ends),
    ):
        calls = []
        got = walk(lambda x, y, calls=calls: calls.append(y) or x)
        assert 1 <= len(calls) <= 5
        assert_array_equal(got[1].x_adv, got[4].x_adv)


@pytest.mark.parametrize("ends", [[0], [2, 0], [-1], [1.5]])
def test_iterates_are_those_after_a_step(ends):
    attack = Attack("BIM", 1, 0.1, 1)
    message = f"`ends` must be an integer >= 1. Received: ends={ends[-1]}$"
    with pytest.raises(ValueError, match=message):
        iterates(lambda x, y: x, X, Y, attack, ends=ends)
    assert iterates(lambda x, y: x, X, Y, attack, ends=[]) == []


def test_zero_gradients_are_those_up_to_the_iterate():
    # The gradient of an image vanishes where its pixels have come to this value.
    at = np.array([9, 0, 0.1, 0.2], "float32").reshape(4, 1, 1, 1)

    def followed(x, y):
        return ops.cast(ops.abs(x - at) > 0.01, "float32")

    attacks = [Attack("BIM", 1, 0.1, n) for n in (1, 2, 3)]
    x = np.zeros((4, 2, 2, 1), "float32")
    for n, got in enumerate(craft(followed, x, Y[:4], attacks), start=1):
        assert_array_equal(np.flatnonzero(got.zero_gradient), range(1, n + 1))


def test_craft_shares_the_first_gradient():
    calls = []
    attacks = [Attack("FGSM", eps, eps, 1) for eps in (0.1, 0.2, 0.3)]
    got = craft(lambda x, y: calls.append(y) or 1 + x, X, Y, attacks)
    assert len(calls) == 1
    for attack, crafted in zip(attacks, got, strict=True):
        assert_allclose(crafted.x_adv, X + attack.eps, rtol=0, atol=1e-6)


def test_steps_that_only_reach_the_ball_are_not_clipped():
    """With num_steps * step_size == eps no attack can leave the ball."""

    def followed(x, y):
        # The first pixel turns back at .05 above its start 0; the others never do.
        turn = np.array([0.05, 9, 9, 9]).reshape(2, 2, 1)
        return ops.convert_to_tensor(turn, "float32") - x

    x = np.zeros((1, 2, 2, 1), "float32")
    settings = {"step_size": 0.025, "num_steps": 8}
    got, free = (bim(followed, x, Y[:1], eps=e, **settings).x_adv for e in (0.2, 1))
    assert_allclose(got, free, rtol=0, atol=1e-6)
    assert_allclose(np.ravel(got)[1:], 0.2, rtol=0, atol=1e-6)
    assert np.ravel(got)[0] < 0.1
    # The ball binds where the steps reach past it.
    got = bim(followed, x, Y[:1], eps=0.15, **settings).x_adv
    assert_allclose(np.ravel(got)[1:], 0.15, rtol=0, atol=1e-6)


def test_zero_gradient_marks_images_that_stood_still():
    # At steps 1 to 4, pixels that move are at 0, .1, .2 and .3. Each row is an image
    # and says where the gradient of its pixels vanishes. In row 5 only one pixel
    # stands still.
    at = np.repeat([[9], [0], [0.1], [0.3], [0.4], [9], [9]], 4, axis=1)
    at[5, 0] = 0
    at = at.reshape(7, 2, 2, 1).astype("float32")
    last = np.eye(7, dtype="float32")[6].reshape(7, 1, 1, 1)

    def followed(x, y):
        grad = ops.cast(ops.abs(x - at) > 0.01, "float32")
        # The last image sets off at the second step, when the first one has moved.
        return grad * ops.where(last > 0, ops.cast(x[0] > 0.05, "float32"), 1.0)

    for num_steps, want in ((1, [1, 6]), (3, [1, 2, 6]), (4, [1, 2, 3, 6])):
        attack = Attack("BIM", 1, 0.1, num_steps)
        got = run(attack, followed, np.zeros_like(at))
        assert_array_equal(np.flatnonzero(got.zero_gradient), want)
        moved = np.minimum(at, 0.1 * (num_steps - last))
        assert_allclose(got.x_adv, moved, rtol=0, atol=1e-6)


def test_predicted_labels_are_held_and_repredicted_ones_follow(linear):
    attack = Attack("BIM", 0.5, 0.1, 5)
    for index in range(3):
        start = np.argmax(linear[0].member_logits(X, index), axis=-1)
        threats = {labels: Threat("member", index, labels) for labels in LABELS}
        got = {
            labels: run(attack, gradient(linear[0], threat)).x_adv
            for labels, threat in threats.items()
        }
        want = numpy_bim(linear, index, attack, lambda _, start=start: start)
        assert_allclose(got["predicted"], want, rtol=0, atol=1e-5)
        want = numpy_bim(linear, index, attack, lambda probs: probs.argmax(axis=1))
        assert_allclose(got["repredicted"], want, rtol=0, atol=1e-5)
        assert len(np.unique(list(got.values()), axis=0)) == 3


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("source", ["mean_member", "ensemble"])
def test_batches_and_compilation_change_nothing(convs, images, source, labels):
    x, y = images
    followed = gradient(convs, Threat(source, labels=labels))
    want = run(ATTACKS[1], followed, x, y)
    compiled = backend.compile(lambda x, y: run(ATTACKS[1], followed, x, y), convs)
    for size in (1, 3, 6):
        parts = [
            compiled(*(ops.convert_to_tensor(a[i : i + size]) for a in (x, y)))
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
    got = run(attack, gradient(convs, Threat("member", 1)), x, y).x_adv
    assert_allclose(got, peer.generate(x, np.eye(4)[y]), rtol=0, atol=1e-5)


def test_images_of_another_scale_are_no_floats(linear):
    followed = gradient(linear[0], Threat("ensemble"))
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]. Received: dtype uint8"):
        fgsm(followed, (255 * X).astype("uint8"), Y, eps=0.1)


@pytest.mark.parametrize("num_labels", [1, 6])
def test_one_hot_vectors_are_no_labels_of_classifiers(num_labels):
    """With as many images as classes and classifiers, the shape alone does not tell."""
    followed = Gradient(lambda x: ops.zeros((6, 6, 6)))
    for one_hot in (np.eye(6)[Y], np.eye(6, dtype=int)[Y]):
        with pytest.raises(ValueError, match=r"not one-hot .* of shape \(., 6\)"):
            fgsm(followed, X[:num_labels], one_hot[:num_labels], eps=0.1)


def test_labels_as_keras_loads_them(linear):
    followed = gradient(linear[0], Threat("ensemble"))
    column = fgsm(followed, X, Y[:, None], eps=0.1)
    assert_array_equal(column.x_adv, fgsm(followed, X, Y, eps=0.1).x_adv)


def test_the_box_is_that_of_the_images(linear):
    followed = gradient(linear[0], Threat("ensemble"))
    attack = Attack("BIM", 8, 1, 2, box=True)
    for attacked in (
        lambda: fgsm(followed, 255 * X, Y, eps=8, box=True),
        lambda: iterates(followed, 255 * X, Y, attack, ends=[2]),
    ):
        with pytest.raises(ValueError, match=r"box=True clips. Received: 0.0 to 255.0"):
            attacked()
    fgsm(followed, 255 * X, Y, eps=8)


@pytest.mark.parametrize("name", ["eps", "step_size", "num_steps"])
@pytest.mark.parametrize("value", [-1, -0.1, np.nan])
def test_settings_out_of_range(name, value):
    settings = {"eps": 0.2, "step_size": 0.1, "num_steps": 2, name: value}
    rule = "an integer >= 1" if name == "num_steps" else ">= 0 and finite"
    message = f"`{name}` must be {rule}. Received: {name}={value}$"
    with pytest.raises(ValueError, match=message):
        bim(lambda x, y: x, X, Y, **settings)


@pytest.mark.parametrize("name", ["eps", "step_size"])
@pytest.mark.parametrize("value", [np.array([0.1, 0.2]), np.ones(1), None, "0.1", [1]])
def test_settings_that_are_no_numbers(name, value):
    settings = {"eps": 0.2, "step_size": 0.1, "num_steps": 2, name: value}
    kind = type(value).__name__
    message = f"^`{name}` must be a number. Received: {kind} instead$"
    with pytest.raises(ValueError, match=message):
        bim(lambda x, y: x, X, Y, **settings)


@pytest.mark.parametrize("value", [2.0, "2", None, 1.5])
def test_steps_that_cannot_be_counted(value):
    message = f"^`num_steps` must be an integer >= 1. Received: num_steps={value}$"
    with pytest.raises(ValueError, match=message):
        bim(lambda x, y: x, X, Y, eps=0.2, step_size=0.1, num_steps=value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_settings_as_numbers_of_numpy(linear, dtype):
    followed = gradient(linear[0], Threat("ensemble"))
    eps = dtype(0.25)
    got = bim(followed, X, Y, eps=eps, step_size=eps, num_steps=np.int64(2))
    want = bim(followed, X, Y, eps=0.25, step_size=0.25, num_steps=2)
    assert ops.dtype(got.x_adv) == "float32"
    assert_array_equal(got.x_adv, want.x_adv)


@pytest.mark.parametrize("x", [X[:0], X[0], X[..., 0], X[None]])
def test_images_of_another_shape(linear, x):
    followed = gradient(linear[0], Threat("ensemble"))
    message = "`x` must be (at least one image|of shape .None, 2, 2, 1.)"
    with pytest.raises(ValueError, match=message):
        fgsm(followed, x, Y[: len(x)], eps=0.1)


def test_labels_of_other_images(linear):
    followed = gradient(linear[0], Threat("ensemble"))
    for y in (Y[:5], Y[:1], np.append(Y, 0)):
        message = f"one label per image. Received: {len(y)} labels for 6 images$"
        with pytest.raises(ValueError, match=message):
            fgsm(followed, X, y, eps=0.1)


@pytest.mark.parametrize("source", ["mean_member", "ensemble"])
@pytest.mark.parametrize("loss", ["exact", "logits", "clipped"])
@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_of_no_class(linear, source, loss, wrong):
    followed = gradient(linear[0], Threat(source, loss=loss))
    y = np.where(np.arange(6) == 2, wrong, Y)
    message = f"labels from 0 to 2. Received: {y.min()} to {y.max()}"
    for labels in (y, ops.convert_to_tensor(y)):
        with pytest.raises(ValueError, match=message):
            fgsm(followed, X, labels, eps=0.1)


def test_a_nan_in_a_gradient_is_an_error():
    """Here it is that of image 2, once it has moved, and of its twin."""
    x = X.copy()
    x[4] = x[2]

    def followed(x_adv, y):
        wrong = ops.equal(ops.cast(y, "float32"), 2.0) & (ops.sum(x_adv - x) > 0.01)
        return ops.where(wrong[:, None, None, None], np.nan, 1.0) + 0 * x_adv

    y = np.array([0, 0, 2, 0, 2, 0])
    fgsm(followed, x, y, eps=0.1)
    message = (
        "^The gradient must be numbers. Received: NaN for 1 different image.s., at "
    )
    with pytest.raises(ValueError, match=f"{message}step 2 of BIM$"):
        bim(followed, x, y, eps=0.1, step_size=0.1, num_steps=3)


def test_negative_fgsm():
    with pytest.raises(ValueError, match="`eps` must be >= 0 .*=-0.3$"):
        fgsm(lambda x, y: x, X, Y, eps=-0.3)
