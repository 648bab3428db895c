"""PGD, APGD and Square, where the best attack is known."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from advens.attacks.apgd import _checkpoints, apgd
from advens.attacks.balls import lengths
from advens.attacks.compiled import gradient
from advens.attacks.pgd import pgd
from advens.attacks.queries import Followed, Scores, answers, in_batches
from advens.attacks.square import square
from advens.attacks.threat import Threat
from advens.models.ensemble import Ensemble

EPS = {"linf": 0.15, "l2": 0.2}
WHOLE = ("mean_member", "ensemble", "mean_logit", "normalized", "adaptive")


def two_pixels(votes, num_classes=3):
    """Return an ensemble whose members are linear in two pixels, and images for it."""
    rng = np.random.default_rng(1)
    members = []
    for scale in (2, 5, 12):
        model = keras.Sequential([keras.Input((1, 2, 1)), layers.Flatten()])
        model.add(layers.Dense(num_classes))
        kernel = scale * rng.normal(size=(2, num_classes))
        model.layers[-1].set_weights([kernel, -kernel.sum(axis=0) / 2])
        members.append(model)
    ensemble = Ensemble(members, votes=votes)
    x = rng.uniform(size=(100, 1, 2, 1)).astype("float32")
    y = np.array(ensemble(x)).argmax(axis=1)
    return ensemble, x, y


def breakable(ensemble, x, y, eps, norm):
    """Return which images some change within eps breaks, tried on a fine grid."""
    steps = np.linspace(-1, 1, 61)
    changes = np.array(list(itertools.product(steps, steps)), "float32")
    changes = eps * changes[lengths(changes, norm) <= 1]
    tried = np.clip(x[:, None] + changes[:, None, :, None], 0, 1)
    probs = np.array(ensemble(tried.reshape(-1, 1, 2, 1)))
    classes = probs.argmax(axis=1).reshape(len(x), -1)
    return (classes != y[:, None]).any(axis=1)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("votes", ["mean_probability", "mean_logit", "majority"])
def test_every_threat_to_the_whole_reaches_the_optimum(votes, norm):
    """The worst case of the threats is the best attack that there is."""
    ensemble, x, y = two_pixels(votes)
    want = breakable(ensemble, x, y, EPS[norm], norm)
    assert 0.2 < want.mean() < 0.8
    broken = []
    for source in WHOLE:
        if source == "ensemble" and votes == "majority":
            continue
        followed = Followed(gradient(ensemble, Threat(source)), 64)
        found = apgd(followed, x, y, eps=EPS[norm], norm=norm, num_steps=50, rng=rng())
        sizes = lengths(found.x_adv - x, norm)
        assert sizes.max() <= EPS[norm] + 1e-6
        assert found.x_adv.min() >= 0
        assert found.x_adv.max() <= 1
        classes = answers(ensemble, found.x_adv, 64)[1].argmax(axis=1)
        assert_array_equal(classes != y, found.broken)
        broken.append(found.broken)
        # The losses of some are not what decides the vote.
        close = 0.1 if source in ("ensemble", "adaptive") else 0.2
        assert found.broken.mean() >= want.mean() - close, source
    # A finer change than those of the grid may break one or two more.
    assert_allclose(np.any(broken, axis=0).mean(), want.mean(), rtol=0, atol=0.025)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("attack", [apgd, pgd])
def test_linear_members_that_vote_with_their_mean_logit(attack, norm):
    """With two classes the ensemble has one gradient everywhere.

    An image falls if eps is above its margin divided by that gradient's dual norm.
    """
    ensemble, x, _ = two_pixels("mean_logit", num_classes=2)
    x = 0.4 + 0.2 * x  # far from the box
    logits = np.mean([np.array(member(x)) for member in ensemble], axis=0)
    y = logits.argmax(axis=1)
    kernel = np.mean([member.get_weights()[0] for member in ensemble], axis=0)
    dual = np.linalg.norm(kernel[:, 0] - kernel[:, 1], {"linf": 1, "l2": 2}[norm])
    margin = np.abs(logits[:, 0] - logits[:, 1]) / dual
    assert 0.1 < (margin < 0.03).mean() < 0.9
    clear = np.abs(margin - 0.03) > 3e-4
    for source in ("ensemble", "mean_logit"):
        followed = Followed(gradient(ensemble, Threat(source)))
        found = attack(followed, x, y, eps=0.03, norm=norm, num_steps=60, rng=rng())
        assert_array_equal(found.broken[clear], (margin < 0.03)[clear])


def test_the_smallest_radius_of_each_image():
    """Each image has a radius of its own, just above or below its margin."""
    ensemble, x, y = two_pixels("mean_logit")
    x = 0.4 + 0.2 * x
    y = np.array(ensemble(x)).argmax(axis=1)
    eps = np.where(np.arange(100) % 2, 0.3, 0.001).astype("float32")
    followed = Followed(gradient(ensemble, Threat("ensemble")), 64)
    for attack in (apgd, pgd):
        found = attack(followed, x, y, eps=eps, num_steps=20, rng=rng())
        assert (lengths(found.x_adv - x, "linf") <= eps + 1e-6).all()
        assert found.broken[1::2].mean() > 0.5 > 0.1 > found.broken[::2].mean()


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("votes", ["mean_probability", "majority"])
def test_square_comes_close_to_the_optimum(votes, norm):
    ensemble, x, y = two_pixels(votes)
    want = breakable(ensemble, x, y, EPS[norm], norm)
    scores = Scores(ensemble, 64)
    found = square(scores, x, y, eps=EPS[norm], norm=norm, num_queries=200, rng=rng())
    assert lengths(found.x_adv - x, norm).max() <= EPS[norm] + 1e-6
    assert not (found.broken & ~want)[want | ~found.broken].any()
    # A majority tells nothing of who is about to change its answer.
    assert found.broken.mean() >= want.mean() - (0.3 if votes == "majority" else 0.15)


@pytest.mark.parametrize("shape", [(6, 5, 2), (2, 7, 1), (12,), (30, 28, 3)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_on_images_of_any_shape(shape, norm):
    """It lowers the lead of the label: here, first half of the pixels less second."""
    x = np.random.default_rng(3).uniform(0.3, 0.7, (4, *shape)).astype("float32")

    def leads(x):
        first, second = np.split(x.reshape(len(x), -1), 2, axis=1)
        return first.mean(axis=1) - second.mean(axis=1)

    def scores(x, y):
        return leads(x), np.ones(len(x), bool)

    found = square(
        scores, x, np.zeros(4, int), eps=0.2, norm=norm, rng=rng(), num_queries=100
    )
    assert lengths(found.x_adv - x, norm).max() <= 0.2 + 1e-6
    best = 2 * (0.2 if norm == "linf" else 0.2 / np.prod(shape) ** 0.5)
    share = 0.15 if norm == "linf" else 0.05
    assert (leads(x) - leads(found.x_adv) > share * best).all()
    assert (found.num_attempts == 100).all()


def test_targeted_attacks_reach_the_optimum_together():
    ensemble, x, y = two_pixels("mean_probability")
    want = breakable(ensemble, x, y, 0.15, "linf")
    followed = Followed(
        gradient(ensemble, Threat("ensemble", objective="targeted_dlr")), 64
    )
    broken = []
    for shift in (1, 2):
        targets = (y + shift) % 3
        found = apgd(followed, x, y, eps=0.15, num_steps=40, targets=targets, rng=rng())
        classes = np.array(ensemble(found.x_adv)).argmax(axis=1)
        assert (classes == targets)[found.broken].mean() > 0.5
        broken.append(found.broken)
    assert_allclose(np.any(broken, axis=0).mean(), want.mean(), rtol=0, atol=0.025)


def test_what_is_broken_is_not_asked_again():
    asked = []

    def followed(x, y):
        asked.append(len(x))
        right = x[:, 0] > 0.25  # the first two images fall at the second attempt
        return -x[:, 0], np.tile([-1.0, 0.0], (len(x), 1)).astype("float32"), right

    x = np.array([[0.3, 0.5], [0.31, 0.5], [0.9, 0.5], [0.8, 0.5]], "float32")
    found = apgd(followed, x, np.zeros(4, int), eps=0.1, num_steps=5, rng=rng())
    assert asked[0] == 4
    assert asked[1:] == [2] * 5 or asked[-1] == 2
    assert found.broken.tolist() == [True, True, False, False]
    assert found.num_attempts[2] == 6 > found.num_attempts[0]
    # Those that resist are left at the point of the largest loss.
    assert_allclose(found.x_adv[2:, 0], [0.8, 0.7], rtol=0, atol=1e-6)


def test_checkpoints():
    """Croce & Hein: 0, .22, .41, .57, ... of the steps."""
    assert sorted(_checkpoints(100))[:7] == [22, 41, 57, 70, 80, 87, 93]


def test_a_step_that_does_not_help_is_halved():
    """On |x - .5|, steps of 2 eps overshoot; only halving reaches the middle."""

    def followed(x, y):
        away = x[:, 0] - 0.5
        grads = -np.sign(away)[:, None].astype("float32")
        return -np.abs(away), grads, np.ones(len(x), bool)

    x = np.full((8, 1), 0.45, "float32")
    found = apgd(followed, x, np.zeros(8, int), eps=0.3, num_steps=100, rng=rng())
    assert np.abs(found.x_adv - 0.5).max() < 0.005


def test_restarts_of_pgd():
    """A loss with a trap: only some starts lead to where the image falls."""

    def followed(x, y):
        grads = np.where(x < 0.55, -1.0, 1.0).astype("float32")
        return x[:, 0], grads, x[:, 0] < 0.65

    x = np.full((60, 1), 0.5, "float32")
    y = np.zeros(60, int)
    once = pgd(followed, x, y, eps=0.2, num_steps=10, rng=rng())
    often = pgd(followed, x, y, eps=0.2, num_steps=10, num_restarts=8, rng=rng())
    assert 0.2 < once.broken.mean() < 0.6
    assert often.broken.mean() > 0.95


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 9, 17])
def test_batches_have_two_shapes(count):
    shapes = set()

    def function(x):
        shapes.add(x.shape[0])
        return (x * 2,)

    x = np.arange(count, dtype="float32")
    (got,) = in_batches(function, (x,), 8)
    assert_array_equal(got, 2 * x)
    assert shapes <= {8, 2}


def test_nan_is_an_error_that_names_the_member():
    ensemble, x, y = two_pixels("mean_probability")
    kernel, bias = ensemble[1].get_weights()
    ensemble[1].set_weights([kernel * np.nan, bias])
    with pytest.raises(ValueError, match=r"members\[1\].* NaN for 100 image\(s\)"):
        Followed(gradient(ensemble, Threat("ensemble")))(x, y)
    with pytest.raises(ValueError, match=r"NaN from members\[1\] for 100 image"):
        answers(ensemble, x, 64)
