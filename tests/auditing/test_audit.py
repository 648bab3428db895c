"""The audit as a whole: its numbers, its panel, and that it can be interrupted."""

import json

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens import audit
from advens.auditing import work
from advens.models.ensemble import Ensemble
from advens.storage.store import Store
from tests.auditing.conftest import RandomShift, Rounding, linear_member

# Enough for tests.
EFFORT = {"num_steps": 12, "num_queries": 100, "num_probes": 30}


@pytest.fixture
def images(digits):
    x, y = digits
    return x[:60], y[:60]


def verdicts(result):
    return {check["check"]: check["verdict"] for check in result.panel()}


def reasons(result):
    return {check["check"]: check["reason"] for check in result.panel()}


def test_an_audit_of_a_plain_ensemble(plain, images):
    x, y = images
    result = audit(plain, x, y, eps=0.08, **EFFORT)
    assert set(verdicts(result).values()) == {"passed"}
    assert_array_equal(result.clean, np.array(plain(x)).argmax(axis=1) == y)
    assert 0.1 < result.robust.mean() < result.clean.mean() - 0.2
    # What counts as broken is broken, within eps, and was attacked only while it stood.
    fooled = np.array(plain(result.x_adv)).argmax(axis=1) != y
    assert_array_equal(result.robust, ~fooled)
    assert np.abs(result.x_adv - x).max() <= 0.08 + 1e-6
    standing = result.clean.copy()
    for outcome in result.results:
        assert_array_equal(outcome.attempted, standing)
        assert not (outcome.broken & ~standing).any()
        standing &= ~outcome.broken
    assert_array_equal(standing, result.robust)

    document = json.loads(json.dumps(result.document(), allow_nan=False))
    assert document["robust_accuracy"]["value"] == result.robust.mean()
    assert document["trusted"]
    assert [a["attempted"] - a["broken"] for a in document["attacks"]][:-1] == [
        a["attempted"] for a in document["attacks"]
    ][1:]
    curve = [point["accuracy"]["value"] for point in document["curves"]["eps"]]
    assert curve == sorted(curve, reverse=True)
    assert curve[0] == result.clean[result.sample].mean()
    assert [p["num_members"] for p in document["curves"]["members"]] == [1, 2, 3]
    transfer = np.array(document["why"]["transfer"])
    assert transfer.shape == (3, 4)
    # A member is weakest under its own gradient.
    assert (transfer[range(3), range(3)] <= transfer[:, :3].T).all()

    arrays = result.arrays()
    by_attack = np.bincount(arrays["broken_by"][arrays["broken_by"] >= 0])
    broken = [a["broken"] for a in document["attacks"]]
    assert by_attack.tolist() == broken[: len(by_attack)]
    assert (arrays["broken_by"] == -2).sum() == (~result.clean).sum()


def test_an_interrupted_audit_goes_on(plain, images, tmp_path, monkeypatch):
    """Killed while its pieces are saved, it makes no piece twice but the last."""
    whole = audit(plain, *images, eps=0.08, **EFFORT)
    made, kills = [], [3, 9, 15]
    save = Store.save

    def save_or_die(self, kind, spec, arrays):
        if len(made) in kills:
            kills.pop(0)
            raise KeyboardInterrupt
        made.append(spec["piece"])
        return save(self, kind, spec, arrays)

    monkeypatch.setattr(Store, "save", save_or_die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            audit(plain, *images, eps=0.08, store=Store(tmp_path), **EFFORT)
    resumed = audit(plain, *images, eps=0.08, store=Store(tmp_path), **EFFORT)
    assert len(set(made)) == len(made) > 15
    for name, array in whole.arrays().items():
        assert_array_equal(array, resumed.arrays()[name])


def test_a_batch_of_another_size_continues(plain, images, tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = audit(plain, *images, eps=0.08, store=store, **EFFORT)
    monkeypatch.setattr(Store, "save", None)
    second = audit(plain, *images, eps=0.08, store=store, batch_size=20, **EFFORT)
    assert_array_equal(first.robust, second.robust)


def test_a_time_budget_ends_an_audit(plain, images, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(work.time, "time", lambda: next(clock))
    result = audit(plain, *images, eps=0.08, time_budget=0.5, **EFFORT)
    done = [outcome.done for outcome in result.results]
    assert done[0]
    assert not done[-1]
    document = result.document()
    assert not document["trusted"]
    assert "Time ran out before all attacks had run" in document["verdict"]
    assert json.dumps(document, allow_nan=False)


@pytest.mark.parametrize("votes", ["mean_logit", "majority"])
def test_other_votes_and_l2(digits, images, votes):
    members = [linear_member(digits, seed) for seed in range(3)]
    result = audit(
        Ensemble(members, votes=votes), *images, eps=0.4, norm="l2", **EFFORT
    )
    changes = (result.x_adv - images[0]).reshape(60, -1)
    assert np.linalg.norm(changes, axis=1).max() <= 0.4 + 1e-5
    assert set(verdicts(result).values()) == {"passed"}
    assert result.robust.mean() < result.clean.mean() - 0.2


def test_a_single_model_of_two_classes(digits):
    x, y = digits
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    rows = y < 2
    flat = x[rows].reshape(-1, 64)
    mean = flat[y[rows] == 1].mean(axis=0) - flat[y[rows] == 0].mean(axis=0)
    model.layers[-1].set_weights(
        [5 * mean[:, None], -5 * (flat @ mean).mean(keepdims=True)]
    )
    result = audit(Ensemble([model]), x[rows][:50], y[rows][:50], eps=0.3, **EFFORT)
    assert result.clean.mean() > 0.9
    assert [outcome.attack.method for outcome in result.results] == ["apgd", "square"]
    assert result.document()["why"]["transfer"] is None


def test_saturated_logits_are_attacked_all_the_same(digits, images, plain):
    """Logits times 1,000: a usual gradient is zero, the exact one is not."""
    saturated = Ensemble([linear_member(digits, seed, scale=1e4) for seed in range(3)])
    result = audit(saturated, *images, eps=0.08, **EFFORT)
    assert verdicts(result)["zero_gradients"] == "passed"
    assert "mask gradients" in reasons(result)["saturation"]
    assert result.robust.mean() < 0.6


def test_rounded_images_are_noticed(digits, images):
    """Nothing can be followed, and what needs no gradient is stronger."""
    members = [linear_member(digits, seed, Rounding()) for seed in range(2)]
    result = audit(Ensemble(members), *images, eps=0.2, **EFFORT)
    found = verdicts(result)
    assert found["zero_gradients"] == found["black_box"] == "failed"
    assert found["unbounded"] == "failed"
    document = result.document()
    assert not document["trusted"]
    assert "overestimates robustness, because" in document["verdict"]


def test_an_accuracy_of_zero_is_trusted(digits, images):
    """Whatever the panel says: there is nothing left to be too high."""
    members = [linear_member(digits, seed, Rounding()) for seed in range(2)]
    document = audit(Ensemble(members), *images, eps=1.0, **EFFORT).document()
    assert document["robust_accuracy"]["value"] == 0
    assert "failed" in {check["verdict"] for check in document["panel"]}
    assert document["trusted"]
    assert "overestimates" not in document["verdict"]


def test_random_members_are_noticed(digits, images):
    members = [linear_member(digits, seed, RandomShift()) for seed in range(2)]
    result = audit(Ensemble(members), *images, eps=0.1, **EFFORT)
    assert verdicts(result)["randomness"] == "failed"
    assert "num_draws=10" in reasons(result)["randomness"]
    averaged = audit(Ensemble(members), *images, eps=0.1, num_draws=4, **EFFORT)
    assert verdicts(averaged)["randomness"] == "passed"


def test_half_precision_is_noticed(digits, images):
    model = linear_member(digits, 0)
    half = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    half.add(keras.layers.Dense(10, activation="softmax", dtype="float16"))
    half.layers[-1].set_weights(model.layers[-1].get_weights())
    result = audit(Ensemble([half]), *images, eps=0.08, **EFFORT)
    assert verdicts(result)["precision"] == "not judged"
    assert "members[0] in float16" in reasons(result)["precision"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "`eps` must be > 0"),
        ({"eps": 0.1, "norm": "l1"}, "`norm` must be one of"),
        ({"eps": 0.1, "num_steps": 0}, "`num_steps` must be an integer >= 1"),
        ({"eps": 0.1, "time_budget": -1}, "`time_budget` must be > 0"),
    ],
)
def test_bad_arguments(plain, images, options, message):
    with pytest.raises(ValueError, match=message):
        audit(plain, *images, **options)
