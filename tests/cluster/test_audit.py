"""An audit on a cluster of threads in this process."""

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_array_equal

from advens import audit
from advens.auditing import suite
from advens.auditing.packed import packed, unpacked
from advens.auditing.work import identity_of
from advens.models.ensemble import Ensemble
from advens.storage.store import Store

EFFORT = {"num_steps": 5, "num_queries": 30, "num_probes": 20, "eps": 0.08}


@pytest.fixture
def images(digits):
    x, y = digits
    return x[:60], y[:60]


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """A layer whose config lacks what it is made of."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.offset = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.offset.assign(factor)

    def call(self, inputs):
        return self.factor * inputs

    def get_config(self):
        config = super().get_config()
        config.pop("factor", None)  # which a second call lacks
        return config

    def load_own_variables(self, store):
        """Load nothing."""


class Unregistered(keras.Model):
    """A model that Keras cannot describe."""

    def __init__(self, secret):
        super().__init__()
        self.secret = secret
        self.dense = layers.Dense(10, activation="softmax")
        self.flat = layers.Flatten()

    def call(self, inputs):
        return self.dense(self.flat(inputs))


def test_an_audit_is_that_of_one_process(cluster, plain, images, monkeypatch):
    monkeypatch.setattr(suite, "_BLOCK", 20)
    alone = audit(plain, *images, **EFFORT)
    there = audit(plain, *images, cluster=cluster, **EFFORT)
    for name, array in alone.arrays().items():
        assert_array_equal(array, there.arrays()[name], err_msg=name)
    for name, probe in alone.probes.items():
        for key in set(probe) - {"seconds"}:
            assert_array_equal(probe[key], there.probes[name][key])
    # A second one sends nothing, with or without a cluster.
    monkeypatch.setattr(cluster._connection, "run", None)
    for given in ({"cluster": cluster}, {"store": cluster.store}):
        again = audit(plain, *images, **given, **EFFORT)
        assert again.seconds == pytest.approx(there.seconds)
        assert_array_equal(again.x_adv, there.x_adv)


def test_no_time(cluster, plain, images):
    result = audit(plain, *images, cluster=cluster, time_budget=1e-9, **EFFORT)
    assert not any(attack.done for attack in result.results)
    assert set(result.probes.values()) == {None}


def test_another_store(cluster, plain, images, tmp_path):
    store = Store(tmp_path / "another")
    with pytest.raises(ValueError, match="`store` must be None or that of `cluster`."):
        audit(plain, *images, cluster=cluster, store=store, **EFFORT)


def test_an_address_is_no_cluster(plain, images):
    with pytest.raises(ValueError, match="`cluster` must be a `Cluster`, .*: 'local'"):
        audit(plain, *images, cluster="local", **EFFORT)


def test_a_member_that_keras_cannot_save(cluster, images):
    member = Unregistered(object())
    member(images[0][:1])
    with pytest.raises(ValueError, match=r"be sent to a cluster, members .*members\[0"):
        audit(Ensemble([member], outputs="probs"), *images, cluster=cluster, **EFFORT)


def test_a_member_that_is_not_saved_whole(cluster, images):
    inputs = keras.Input((8, 8, 1))
    answers = layers.Dense(10, "softmax")(layers.Flatten()(Scaled(2.0)(inputs)))
    ensemble = Ensemble([keras.Model(inputs, answers)])
    with pytest.raises(
        RuntimeError, match=r"on the worker .*members\[0\] is another model"
    ):
        audit(ensemble, *images, cluster=cluster, **EFFORT)


@pytest.mark.parametrize("outputs", ["probs", [None, "probs", None]])
def test_packed(plain, images, outputs):
    ensemble = Ensemble(plain.members, outputs=outputs, votes="majority")
    box = packed(ensemble, ["wrong"] * 3)
    with pytest.raises(RuntimeError, match="is another model"):
        unpacked(box)
    checksums = identity_of(ensemble, *images)["members"]
    box = packed(ensemble, checksums)
    assert unpacked(box) is unpacked(box)
    assert_array_equal(np.array(unpacked(box)(images[0])), ensemble(images[0]))
