import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens.attacks.threat import Attack, Threat
from advens.evaluation import stored
from advens.evaluation.evaluate import evaluate, evaluate_batches
from advens.evaluation.outcomes import Outcomes
from advens.evaluation.stored import KIND, outcomes_spec, stored_outcomes
from advens.storage.store import Store

NUM_IMAGES = 11
THREAT = Threat("mean_member")
ATTACKS = (Attack("FGSM", 0.2, 0.2, 1), Attack("BIM", 0.2, 0.05, 4))
SPEC = {"a": 1}


def spec(evaluated=SPEC, threat=THREAT, attacks=ATTACKS, backend="tensorflow"):
    return outcomes_spec(evaluated, threat=threat, attacks=attacks, backend=backend)


def random_batches(start=0, batch_size=2):
    """Yield the outcomes of two attacks, which depend on nothing but the image."""
    rng = np.random.default_rng(0)
    whole = [
        Outcomes(*(rng.random((*shape, NUM_IMAGES)) < 0.5 for shape in ((3,), (), ())))
        for _ in range(2)
    ]
    for first in range(start, NUM_IMAGES, batch_size):
        rows = slice(first, first + batch_size)
        yield [Outcomes(*(array[..., rows] for array in part)) for part in whole]


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        for field in Outcomes._fields:
            assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.fixture
def want():
    [outcomes] = random_batches(batch_size=NUM_IMAGES)
    return outcomes


@pytest.fixture
def after_every_batch(monkeypatch):
    monkeypatch.setattr(stored, "_CHECKPOINT_SECONDS", -1)


def test_outcomes_are_computed_once(tmp_path, want):
    store, calls = Store(tmp_path), []

    def evaluate_from(start):
        calls.append(start)
        return random_batches(start)

    first = stored_outcomes(store, spec(), NUM_IMAGES, evaluate_from)
    seen = []
    again = stored_outcomes(
        store, spec(), NUM_IMAGES, evaluate_from, on_images=seen.append
    )
    assert calls == [0]
    assert seen == [NUM_IMAGES]
    assert_same(first, want)
    assert_same(again, want)
    # Another ensemble, threat or attack is another artefact.
    for other in (
        spec({"a": 2}),
        spec(threat=None, attacks=()),
        spec(threat=dataclasses.replace(THREAT, labels="predicted")),
        spec(attacks=ATTACKS[:1]),
        spec(backend="jax"),
    ):
        stored_outcomes(store, other, NUM_IMAGES, evaluate_from)
    assert calls == [0] * 6


def test_what_is_stored_is_what_evaluate_returns(tmp_path, convs, images):
    attacked = {"threat": THREAT, "attacks": ATTACKS}

    def evaluate_from(start):
        x, y = (array[start:] for array in images)
        return evaluate_batches(convs, x, y, **attacked, batch_size=2)

    outcomes = evaluate(convs, *images, **attacked)
    for _ in range(2):
        got = stored_outcomes(Store(tmp_path), spec(), 6, evaluate_from)
        assert_same(got, outcomes)


def test_images_are_counted_once(tmp_path):
    seen = []
    stored_outcomes(
        Store(tmp_path), spec(), NUM_IMAGES, random_batches, on_images=seen.append
    )
    assert seen == [2, 2, 2, 2, 2, 1]


@pytest.mark.usefixtures("after_every_batch")
def test_interrupted_attack_goes_on(tmp_path, want):
    store, seen = Store(tmp_path), []

    def stop(count):
        seen.append(count)
        if sum(seen) >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored_outcomes(store, spec(), NUM_IMAGES, random_batches, on_images=stop)
    seen.clear()
    starts = []

    def evaluate_from(start):
        starts.append(start)
        return random_batches(start)

    outcomes = stored_outcomes(
        store, spec(), NUM_IMAGES, evaluate_from, on_images=seen.append
    )
    # The batch in flight is lost; those before it are not attacked again.
    assert starts == [4]
    assert seen[0] == 4
    assert sum(seen) == NUM_IMAGES
    assert_same(outcomes, want)


@pytest.mark.usefixtures("after_every_batch")
def test_attack_that_was_killed_before_its_last_write_ends(tmp_path, want, monkeypatch):
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", None)
        with pytest.raises(TypeError):
            stored_outcomes(store, spec(), NUM_IMAGES, random_batches)

    def evaluate_from(start):
        raise AssertionError("all images were done")

    assert_same(stored_outcomes(store, spec(), NUM_IMAGES, evaluate_from), want)
    assert store.has(KIND, spec())


def test_spec():
    """Its text is the address of what was stored: it must not change."""
    assert spec(attacks=ATTACKS[:1]) == {
        "a": 1,
        "threat": {
            "gradient": "mean_member",
            "index": None,
            "labels": "true",
            "loss": "exact",
            "compute": "float32",
        },
        "attacks": [
            {
                "name": "FGSM",
                "eps": 0.2,
                "step_size": 0.2,
                "num_steps": 1,
                "box": False,
            }
        ],
        "backend": "tensorflow",
    }
    assert spec(threat=None, attacks=())["threat"] is None


@pytest.mark.parametrize("field", [{"num_draws": 3}, {"objective": "dlr"}])
def test_later_fields_are_part_of_the_address_where_they_are_used(field):
    used = spec(threat=dataclasses.replace(THREAT, **field))["threat"]
    usual = spec()["threat"]
    assert used == {**usual, **field}
    fields = {field.name for field in dataclasses.fields(THREAT)}
    assert fields - usual.keys() == {"num_draws", "objective"}
