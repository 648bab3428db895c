"""Strong attacks beside their printed algorithm and beside ART's."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from advens.attacks.apgd import apgd
from advens.attacks.balls import random_start
from advens.attacks.compiled import gradient
from advens.attacks.evaluation import Evaluation
from advens.attacks.queries import Followed, Scores
from advens.attacks.square import square
from advens.attacks.threat import Threat
from advens.evaluation.evaluate import evaluate
from advens.models.ensemble import Ensemble
from advens.models.votes import mean_log_probs

of_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="ART needs TensorFlow here"
)
# What ART calls the norms.
ORDERS = {"linf": np.inf, "l2": 2}


class Waves:
    """A loss with many maxima that no image breaks: sums of sines of the pixels."""

    def __init__(self, seed, size):
        rng = np.random.default_rng(seed)
        self.directions = rng.normal(size=(12, size))
        self.amplitudes, self.phases = rng.normal(size=(2, 12))
        self.num_calls = 0

    def __call__(self, x, y):
        self.num_calls += 1
        angles = x.reshape(len(x), -1) @ self.directions.T + self.phases
        losses = np.sin(angles) @ self.amplitudes
        grads = (np.cos(angles) * self.amplitudes) @ self.directions
        grads = grads.reshape(x.shape).astype("float32")
        return Evaluation(losses.astype("float32"), grads, np.ones(len(x), bool))


def printed_apgd(waves, x, start, eps, norm, num_steps):
    """Run Algorithm 1 of Croce & Hein 2020, arXiv:2003.01690, on one image.

    Its check at point k comes before the step to point k + 1, as in the authors' code.
    x and start are of shape (1, ...). Returns the best point.
    """

    def f(point):
        return waves(point, None).losses[0]

    def ascent(point):
        grad = waves(point, None).grads
        return np.sign(grad) if norm == "linf" else grad / np.linalg.norm(grad)

    def project(point):
        change = point - x
        if norm == "linf":
            change = np.clip(change, -eps, eps)
        else:
            change = change * min(1, eps / np.linalg.norm(change))
        return np.clip(x + change, 0, 1)

    p = [0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = [int(np.ceil(np.round(share * num_steps, 6))) for share in p]
    eta, points = 2 * eps, [start, project(start + 2 * eps * ascent(start))]
    values = [f(point) for point in points]
    f_max, x_max = max(zip(values, points, strict=True), key=lambda pair: pair[0])
    etas, maxima = [eta], [values[0]]
    for k in range(1, num_steps + 1):
        if k in w:
            j = w.index(k)
            rises = sum(values[i + 1] > values[i] for i in range(w[j - 1], k))
            too_few = rises < 0.75 * (k - w[j - 1])
            stuck = j > 1 and etas[-1] == eta and maxima[-1] == f_max
            etas.append(eta)
            maxima.append(f_max)
            if too_few or stuck:
                eta, points[k] = eta / 2, x_max
        if k == num_steps:
            break
        z = project(points[k] + eta * ascent(points[k]))
        before = points[k - 1]
        moved = points[k] + 0.75 * (z - points[k]) + 0.25 * (points[k] - before)
        points.append(project(moved))
        values.append(f(points[-1]))
        if values[-1] > f_max:
            f_max, x_max = values[-1], points[-1]
    return x_max


@pytest.mark.parametrize("num_steps", [7, 40, 100])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.4), ("l2", 1.0)])
def test_apgd_is_the_printed_algorithm(norm, eps, num_steps):
    x = np.random.default_rng(0).uniform(size=(20, 3, 3, 1)).astype("float32")
    y, waves = np.zeros(20, int), Waves(1, 9)
    rng = np.random.default_rng(2)
    found = apgd(waves, x, y, eps=eps, norm=norm, num_steps=num_steps, rng=rng)
    assert waves.num_calls == num_steps + 1
    starts = random_start(x, np.full(20, eps), norm, np.random.default_rng(2))
    for i in range(len(x)):
        want = printed_apgd(waves, x[[i]], starts[[i]], eps, norm, num_steps)
        assert_allclose(found.x_adv[[i]], want, rtol=0, atol=1e-3)


def right(ensemble, x_adv, y):
    return evaluate(ensemble, x_adv, y)[0].ensemble


@pytest.fixture(scope="module")
def digits():
    """Return an ensemble of three small networks, and images that it gets right."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    members = []
    for _ in range(3):
        member = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(8, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        member.compile(keras.optimizers.Adam(0.01), loss)
        member.fit(x[:1500], y[:1500], epochs=5, batch_size=50, verbose=0)
        members.append(member)
    ensemble = Ensemble(members, outputs="logits")
    x, y = x[1500:], y[1500:]
    known = right(ensemble, x, y)
    return ensemble, x[known], y[known]


@pytest.fixture(scope="module")
def classifier(digits):
    """Return the same ensemble for ART: log(mean probability) as its logits."""
    from art.estimators.classification import TensorFlowV2Classifier

    ensemble = digits[0]
    x = keras.Input((8, 8, 1))
    log_probs = mean_log_probs(ops.stack([m(x) for m in ensemble.logits_models]))
    return TensorFlowV2Classifier(
        keras.Model(x, log_probs),
        nb_classes=10,
        input_shape=(8, 8, 1),
        loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
        clip_values=(0, 1),
    )


@of_tensorflow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
def test_apgd_is_not_weaker_than_art(digits, classifier, norm, eps):
    """The worst case of both losses: which of them is stronger is chance."""
    from art.attacks.evasion import AutoProjectedGradientDescent

    ensemble, x, y = digits
    x, y = x[:60], y[:60]
    ours, theirs = np.ones((2, len(x)), bool)
    losses = {"cross_entropy": "cross_entropy", "dlr": "difference_logits_ratio"}
    for objective, name in losses.items():
        followed = Followed(gradient(ensemble, Threat("ensemble", objective=objective)))
        rng = np.random.default_rng(0)
        found = apgd(followed, x, y, eps=eps, norm=norm, num_steps=20, rng=rng)
        ours &= right(ensemble, found.x_adv, y)
        np.random.seed(0)  # noqa: NPY002, all that ART knows
        peer = AutoProjectedGradientDescent(
            classifier,
            norm=ORDERS[norm],
            eps=eps,
            eps_step=2 * eps,
            max_iter=20,
            nb_random_init=1,
            batch_size=100,
            loss_type=name,
            verbose=False,
        )
        theirs &= right(ensemble, peer.generate(x, np.eye(10)[y]), y)
    assert 0.1 < theirs.mean() < 0.9
    assert ours.mean() <= theirs.mean() + 0.02


@of_tensorflow
def test_square_is_not_weaker_than_art(digits, classifier):
    """In L2, ART's returns NaN for images this small."""
    from art.attacks.evasion import SquareAttack

    ensemble, x, y = digits
    rng = np.random.default_rng(0)
    found = square(Scores(ensemble), x, y, eps=0.15, num_queries=100, rng=rng)
    np.random.seed(0)  # noqa: NPY002
    peer = SquareAttack(
        classifier, eps=0.15, max_iter=100, batch_size=100, verbose=False
    )
    theirs = right(ensemble, peer.generate(x, np.eye(10)[y]), y)
    assert 0.1 < theirs.mean() < 0.9
    assert right(ensemble, found.x_adv, y).mean() <= theirs.mean() + 0.02
