import dataclasses
import multiprocessing
import os
import signal

import joblib
import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advens import datasets, models, pipelines, process
from advens.adversarial_training import Adversarial, AdversarialTraining
from advens.distillation import Distillation
from advens.ensemble import Ensemble
from advens.gradients import use_xla
from advens.layers import HalfWordDropout, QuickConv2D
from advens.recipes import Member, Recipe
from advens.store import DamagedArtefactWarning, Store
from advens.trainer import InTraining, Trainer, _FusedAdam, make_optimizer
from advens.training import (
    default_jobs,
    fit_members,
    load_ensemble,
    load_member,
    restarts,
)

# Damage fails a test that does not expect it.
pytestmark = pytest.mark.filterwarnings("error::advens.store.DamagedArtefactWarning")

DATA = datasets.load("digits").subset(train_images=64, test_images=16)
TINY = models.Architecture((28, 28, 1), ((2,),), (0.2,), 8, "valid", logits="linear")
WIDE = dataclasses.replace(TINY, units=9)
# Three steps an epoch, the last one of 16 images.
BASE = Recipe(TINY, epochs=3, batch_size=24, optimizer="adam", learning_rate=0.01)
# A stack of one gives the same bits again, see test_stacked.py.
ONE_BY_ONE = {"stack": 1} if keras.backend.backend() == "jax" else {}
BOTH = {"bootstrap": True, "noise_std": 0.2}
SOFT = {"adversarial": Adversarial(0.1)}
KINDS = {
    "plain": {},
    "bagged": {"bootstrap": True},
    "noisy": {"noise_std": 0.2},
    "adversarial": SOFT,
    "printed": {**BOTH, "distillation": Distillation(temperature=2.0)},
    "papernot": {**SOFT, "distillation": Distillation(2.0, "papernot")},
    "bfloat16": {"precision": "mixed_bfloat16"},
    "float16": {"precision": "mixed_float16"},
}


def make(kind="plain", seed=1, **changes):
    recipe = dataclasses.replace(BASE, **{**KINDS[kind], **changes})
    return Member(recipe, seed, DATA.checksums["train"])


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert_array_equal(a, b)


def interrupt():
    raise KeyboardInterrupt("stop")


def fill_the_disk():
    raise OSError("stop: no space left")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Recorder(Store):
    """Note the checkpoints and artefacts that are written, and fail if told to."""

    def __init__(self, root, fail=None, *, before=None, after=None):
        super().__init__(root)
        self.written, self.fail, self.before, self.after = [], fail, before, after

    def save_checkpoint(self, kind, spec, step, arrays):
        self._save(step, super().save_checkpoint, kind, spec, step, arrays)

    def save(self, kind, spec, arrays):
        self._save(kind, super().save, kind, spec, arrays)

    def _save(self, what, save, *arguments):
        if what == self.before:
            self.fail()
        save(*arguments)
        self.written.append(what)
        if what == self.after:
            self.fail()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a store with a member of each kind, all trained in one call."""
    store = Store(tmp_path_factory.mktemp("trained"))
    fit_members([make(kind) for kind in KINDS], DATA, store, **ONE_BY_ONE)
    return store


def labels_of(teacher, formula, x, store):
    """Return softmax(F(x) / 2), or softmax(Z(x) / 2) as log F is Z but for a sum."""
    network = models.build(TINY, seed=0)
    network.set_weights(load_member(teacher, store))
    probs = network.predict(x, verbose=0)
    exp = np.exp(probs / 2) if formula == "printed" else np.sqrt(probs)
    return exp / exp.sum(axis=1, keepdims=True)


def plain_fit(recipe, seed, store):
    """Return the weights that Keras alone gives, from a network without its softmax."""
    x, y = DATA.x_train, DATA.y_train
    optimizer, divisor = keras.optimizers.Adam(0.01), 1
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if recipe.noise_std:
        x = x + pipelines.gaussian_noise(seed, x.shape, noise_std=0.2)
    weights_seed = pipelines.weights_seed(seed, student=bool(recipe.distillation))
    if recipe.distillation:
        formula = recipe.distillation.formula
        teacher = make(seed=seed, **(BOTH if formula == "printed" else SOFT))
        y = labels_of(teacher, formula, x, store)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        divisor = 2 if formula == "papernot" else 1
    options = {} if use_xla() else {"dropout": HalfWordDropout}
    network = models.build(TINY, seed=weights_seed, dtype=recipe.precision, **options)
    last = keras.layers.Rescaling(1 / divisor)
    model = keras.Sequential([keras.Input((28, 28, 1)), *network.layers[:-1], last])
    if recipe.adversarial:
        model = AdversarialTraining(model, eps=0.1, outputs="logits")
    if recipe.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, loss, jit_compile=use_xla())
    for epoch in range(3):
        rows = pipelines.epoch_rows(seed, epoch, 64, bootstrap=recipe.bootstrap)
        model.fit(x[rows], y[rows], batch_size=24, shuffle=False, verbose=0)
    return network.get_weights()


@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_plain_fit(kind, trained):
    got = load_member(make(kind), trained)
    for a, b in zip(got, plain_fit(make(kind).recipe, 1, trained), strict=True):
        assert a.dtype == b.dtype == np.float32
        # 16 bits are rounded otherwise by every processor and program.
        atol = 1e-3 if kind in ("float16", "bfloat16") else 1e-4
        assert_allclose(a, b, rtol=0, atol=atol)


def test_members_of_one_seed_differ(trained):
    kernels = [load_member(make(kind), trained)[0] for kind in KINDS]
    for i, kernel in enumerate(kernels):
        assert not any(np.allclose(kernel, k, rtol=0, atol=1e-6) for k in kernels[:i])


def test_a_member_is_the_same_wherever_it_is_trained(trained, tmp_path):
    store = Recorder(tmp_path)
    fit_members([make(seed=2), make()], DATA, store, **ONE_BY_ONE)
    assert store.written == [1, 2, 3, "member"] * 2
    assert_same(load_member(make(), store), load_member(make(), trained))
    assert (load_member(make(seed=2), store)[0] != load_member(make(), store)[0]).all()
    # Its checkpoints are gone.
    names = {path.stem for path in (tmp_path / "member").iterdir()}
    assert names == {make(seed=2).digest, make().digest}


@pytest.mark.parametrize(
    ("kind", "fail", "where", "again"),
    [
        ("plain", interrupt, {"after": 1}, [2, 3]),
        ("plain", fill_the_disk, {"before": 2}, [2, 3]),
        ("plain", interrupt, {"after": 3}, []),
        ("plain", fill_the_disk, {"before": "member"}, []),
        ("papernot", interrupt, {"after": "labels"}, [1, 2, 3]),
        ("papernot", fill_the_disk, {"before": 3}, [3]),
        ("float16", interrupt, {"after": 2}, [3]),
    ],
)
def test_interrupted(kind, fail, where, again, trained, tmp_path):
    member = make(kind)
    if member.teacher:
        fit_members([member.teacher], DATA, Store(tmp_path))
    with pytest.raises((KeyboardInterrupt, OSError), match="stop"):
        fit_members([member], DATA, Recorder(tmp_path, fail, **where))
    # Another one takes the network in which the first one was trained.
    fit_members([make(kind, seed=2)], DATA, Store(tmp_path / "other"))
    store = Recorder(tmp_path)
    fit_members([member], DATA, store)
    assert store.written == [*again, "member"]
    assert_same(load_member(member, store), load_member(member, trained))


def train_until_killed(member, root):
    fit_members([member], DATA, Recorder(root, die, before=2))


def test_killed(trained, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=train_until_killed, args=(make(), tmp_path))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    store = Recorder(tmp_path)
    fit_members([make()], DATA, store)
    assert store.written == [2, 3, "member"]
    assert_same(load_member(make(), store), load_member(make(), trained))


def test_the_loss_scale_is_in_a_checkpoint(tmp_path):
    member = make("float16")
    with pytest.raises(KeyboardInterrupt):
        fit_members([member], DATA, Recorder(tmp_path, interrupt, after=1))
    _, state = Store(tmp_path).load_checkpoint("member", member.spec)
    # It begins at 2^15 and halves when a gradient overflows.
    assert any(a.shape == () and 2**10 <= a <= 2**15 for a in state.values())


def test_what_is_finished_is_not_trained_again(trained, monkeypatch):
    def fit(*arguments, **options):
        raise AssertionError("it is trained")

    monkeypatch.setattr(Trainer, "fit", fit)
    fit_members([make(kind) for kind in KINDS], DATA, trained)
    fit_members([make(kind) for kind in KINDS], DATA, trained, n_jobs=2)
    with pytest.raises(AssertionError, match="it is trained"):
        fit_members([make(seed=2)], DATA, trained)


@pytest.mark.skipif(use_xla(), reason="for TensorFlow on a CPU")
@pytest.mark.parametrize("kind", ["bagged", "adversarial", "printed"])
@pytest.mark.parametrize("steps", [1, 2])
def test_steps_of_a_call_change_nothing(kind, steps, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("advens.trainer._STEPS_A_CALL", steps)
    store = Store(tmp_path)
    fit_members([make(kind)], DATA, store)
    assert_same(load_member(make(kind), store), load_member(make(kind), trained))


def test_a_process_a_core(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 5)
    assert default_jobs() == (1 if use_xla() else 5)


# `pytest.warns` lets pass what setup.cfg ignores.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_damaged_member_is_made_again(trained, tmp_path):
    store, path = Recorder(tmp_path), tmp_path / "member" / f"{make().digest}.npz"
    fit_members([make(), make(seed=2)], DATA, store, **ONE_BY_ONE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(DamagedArtefactWarning, match=make().digest):
        fit_members([make(), make(seed=2)], DATA, store)
    assert store.written == [1, 2, 3, "member"] * 3
    assert_same(load_member(make(), store), load_member(make(), trained))


def test_a_teacher_comes_first_and_is_left_alone(tmp_path):
    # So low a rate leaves the initial weights as they are.
    student = make("printed", learning_rate=1e-9)
    store = Recorder(tmp_path, interrupt, before="labels")
    with pytest.raises(KeyboardInterrupt):
        fit_members([student], DATA, store)
    before = load_member(student.teacher, store)
    store.before = None
    fit_members([student], DATA, store)
    epochs = [1, 2, 3, "member"]
    assert store.written == [*epochs, "labels", *epochs]
    assert_same(load_member(student.teacher, store), before)
    initial = models.build(TINY, seed=1).get_weights()[0]
    assert_allclose(before[0], initial, rtol=0, atol=1e-6)
    assert abs(load_member(student, store)[0] - initial).max() > 0.1


def test_a_teacher_of_two_students_is_trained_once(tmp_path):
    store = Recorder(tmp_path)
    papernot = Distillation(2.0, "papernot")
    fit_members([make("printed"), make("printed", distillation=papernot)], DATA, store)
    assert store.written.count("member") == 3


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_give_the_same_members(backend, trained, tmp_path, monkeypatch):
    if backend == "threading":
        # For the whole of this process.
        monkeypatch.setattr(process, "be_deterministic", lambda: None)
    kinds = ("plain", "bagged", "printed", "papernot")
    members = [make(kind) for kind in kinds]
    store = Store(tmp_path)
    with joblib.parallel_config(backend=backend):
        fit_members(members, DATA, store, n_jobs=2)
    everyone = [*members, *(m.teacher for m in members[2:])]
    assert all(store.has("member", member.spec) for member in everyone)
    got, want = (load_ensemble(everyone, s) for s in (store, trained))
    for a, b in zip(got.members, want.members, strict=True):
        assert_allclose(a(DATA.x_test), b(DATA.x_test), rtol=0, atol=1e-4)


def test_load_ensemble(trained):
    members = [make("bfloat16"), make()]
    ensemble = load_ensemble(members, trained)
    for network, member in zip(ensemble.members, members, strict=True):
        assert_same(network.get_weights(), load_member(member, trained))
        assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert_allclose(
        ensemble(DATA.x_test),
        np.mean([network(DATA.x_test) for network in ensemble.members], axis=0),
        rtol=0,
        atol=1e-6,
    )


def test_load_into_an_ensemble_of_the_same_networks(trained, tmp_path):
    store = Store(tmp_path)
    plain, bagged = make(epochs=1), make("bagged", epochs=1)
    wide = make(architecture=WIDE, epochs=1)
    fit_members([plain, bagged, wide], DATA, store)
    ensemble = load_ensemble([plain, wide], store)
    by_hand = Ensemble([models.build(TINY, seed=0), models.build(WIDE, seed=0)])
    for members in ([wide, plain], [plain], [plain, wide, plain]):
        assert load_ensemble(members, store, into=ensemble) is not ensemble
    assert load_ensemble([plain, wide], store, into=by_hand) is not by_hand
    assert_same(ensemble[0].get_weights(), load_member(plain, store))
    assert load_ensemble([bagged, wide], store, into=ensemble) is ensemble
    for network, member in zip(ensemble.members, (bagged, wide), strict=True):
        assert_same(network.get_weights(), load_member(member, store))


def test_an_untrained_member_is_not_found(trained):
    member = make(seed=7)
    for load in (load_member, lambda m, store: load_ensemble([make(), m], store)):
        with pytest.raises(LookupError, match=f"does not hold .* {member.digest}"):
            load(member, trained)


def test_optimizers(tmp_path):
    optimizer = make_optimizer("sgd", 0.25)
    assert type(optimizer) is keras.optimizers.SGD
    assert float(optimizer.learning_rate) == 0.25
    for function in (
        lambda: make_optimizer("adamant", 0.25),
        lambda: fit_members([make(optimizer="adamant")], DATA, Store(tmp_path)),
    ):
        with pytest.raises(ValueError, match="`optimizer` must be the name") as error:
            function()
        assert str(error.value).endswith("Received: optimizer='adamant'")


RELU = dataclasses.replace(TINY, logits="relu")


def killing_start(monkeypatch, attempts):
    """Let the first attempts start with logits that are zero for every image."""
    start, seeds = Trainer.start, []

    def killed(self, seed):
        state = start(self, seed)
        seeds.append(seed)
        if len(seeds) <= attempts:
            self.weights(state)[-1][:] = -1e3
        return state

    monkeypatch.setattr(Trainer, "start", killed)
    return seeds


def test_dead_network_is_started_again_from_other_weights(tmp_path, monkeypatch):
    member = make(architecture=RELU)
    seeds = killing_start(monkeypatch, attempts=2)
    store = Recorder(tmp_path)
    fit_members([member], DATA, store)
    assert seeds == [pipelines.weights_seed(1, attempt=i) for i in range(3)]
    assert len(set(seeds)) == 3
    assert restarts(member, store) == 2
    [network] = load_ensemble([member], store)
    assert np.ptp(network.predict(DATA.x_train, verbose=0)) > 0
    # The same seed, alive from the start, is not the same network.
    monkeypatch.undo()
    other = Store(tmp_path / "other")
    fit_members([member], DATA, other)
    assert restarts(member, other) == 0
    first = load_member(member, other)[0]
    assert not np.array_equal(first, load_member(member, store)[0])


def test_network_that_always_dies_is_an_error(tmp_path, monkeypatch):
    seeds = killing_start(monkeypatch, attempts=100)
    with pytest.raises(RuntimeError, match="stays alive in 20 attempts"):
        fit_members([make(architecture=RELU)], DATA, Store(tmp_path))
    assert len(seeds) == 20


@pytest.mark.skipif(bool(ONE_BY_ONE), reason="of the TensorFlow backend")
def test_stacks_are_not_for_tensorflow(tmp_path):
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax.* stack=2 with .*tensorf"):
        fit_members([make()], DATA, Store(tmp_path), stack=2)


@pytest.mark.skipif(use_xla(), reason="for TensorFlow on a CPU")
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_adam_is_keras_s_adam(precision):
    options = (TINY, "adam", 0.01, precision, None, None)
    ours, theirs = (Trainer(*options) for _ in range(2))
    optimizer = plain = keras.optimizers.Adam(0.01)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    for adam in (ours.model.optimizer, optimizer):
        adam = getattr(adam, "inner_optimizer", adam)
        assert isinstance(adam, _FusedAdam) == (adam is not plain)
    theirs.model.compile(optimizer, theirs.model.loss, jit_compile=False)
    for _ in range(5):
        for trainer in (ours, theirs):
            trainer.model.train_on_batch(DATA.x_train, DATA.y_train)
    # Where weights differ by rounding, float16 may round them apart.
    half = precision == "mixed_float16"
    rtol, atol = (1e-2, 1e-5) if half else (1e-4, 1e-6)
    for a, b in zip(
        ours.model.optimizer.variables, theirs.model.optimizer.variables, strict=True
    ):
        assert_allclose(a, b, rtol=rtol, atol=atol)
    for a, b in zip(
        ours.network.get_weights(), theirs.network.get_weights(), strict=True
    ):
        assert_allclose(a, b, rtol=0, atol=1e-3 if half else 1e-5)


@pytest.mark.skipif(use_xla(), reason="for TensorFlow on a CPU")
@pytest.mark.parametrize("kind", ["plain", "adversarial"])
def test_without_onednn_members_train_alike(kind, monkeypatch):
    recipe = make(kind).recipe
    network = dataclasses.replace(TINY, blocks=((2, 3),))
    options = ("adam", 0.01, recipe.precision, recipe.adversarial, None)
    weights = []
    for onednn in (True, False):
        monkeypatch.setattr("advens.trainer.uses_onednn", lambda found=onednn: found)
        trainer = Trainer(network, *options)
        for layer in trainer.network.layers[:2]:
            assert isinstance(layer, keras.layers.Conv2D)
            assert isinstance(layer, QuickConv2D) != onednn
        one = InTraining(make(kind), DATA.x_train, DATA.y_train, trainer.start(1))
        trainer.fit([one], lambda one: None)
        weights.append(trainer.weights(one.state))
    for a, b in zip(*weights, strict=True):
        assert_allclose(a, b, rtol=0, atol=1e-4)
