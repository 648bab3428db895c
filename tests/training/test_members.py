import dataclasses
import multiprocessing
import os
import signal
import threading

import joblib
import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend, datasets
from advens.defenses.adversarial_training import AdversarialTraining
from advens.defenses.settings import AdversarialSettings, DistillationSettings
from advens.models import convnet
from advens.models.architecture import Architecture
from advens.models.fast_layers import HalfWordDropout
from advens.storage.store import DamagedArtefactWarning, Store
from advens.training import members as training
from advens.training import samples
from advens.training.members import (
    default_jobs,
    fit_members,
    load_ensemble,
    load_member,
    load_weights,
)
from advens.training.recipe import Member, Recipe
from advens.training.state import restarts
from advens.training.trainer import Trainer

if keras.backend.backend() == "jax":
    from advens.training.stacked_trainer import StackedTrainer as BackendTrainer

    # Only stacks of one member give the same bits again, see test_stacked_trainer.py.
    ONE_BY_ONE = {"stack": 1}
else:
    from advens.training.keras_trainer import KerasTrainer as BackendTrainer

    ONE_BY_ONE = {}

# Damage fails a test that does not expect it.
pytestmark = pytest.mark.filterwarnings(
    "error::advens.storage.store.DamagedArtefactWarning"
)

DATA = datasets.load("digits").subset(train_images=64, test_images=16)
TINY = Architecture((28, 28, 1), ((2,),), (0.2,), 8, "valid", logits="linear")
# Three steps per epoch, the last one of 16 images.
BASE = Recipe(TINY, epochs=3, batch_size=24, optimizer="adam", learning_rate=0.01)
BAGGED_AND_NOISY = {"bootstrap": True, "noise_std": 0.2}
ADVERSARIAL = {"adversarial": AdversarialSettings(0.1)}
PRINTED = DistillationSettings(temperature=2.0)
PAPERNOT = DistillationSettings(temperature=2.0, formula="papernot")
KINDS = {
    "plain": {},
    "bagged": {"bootstrap": True},
    "noisy": {"noise_std": 0.2},
    "adversarial": ADVERSARIAL,
    "printed": {**BAGGED_AND_NOISY, "distillation": PRINTED},
    "papernot": {**ADVERSARIAL, "distillation": PAPERNOT},
    "bfloat16": {"precision": "mixed_bfloat16"},
    "float16": {"precision": "mixed_float16"},
}


def make(kind="plain", seed=1, **changes):
    recipe = dataclasses.replace(BASE, **{**KINDS[kind], **changes})
    return Member(recipe, seed, DATA.checksums["train"], backend.name())


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
    """A store that notes what is written to it, and fails if it is told to.

    Args:
        root: see `Store`.
        fail: called before or after something is written.
        before: the step of a checkpoint or the kind of an artefact.
        after: likewise.
    """

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


def smoothed_by_hand(teacher, formula, x, store):
    """Return softmax(F(x) / 2) or softmax(Z(x) / 2).

    The latter is sqrt(F) up to normalisation, as log F is Z but for a constant.
    """
    network = convnet.build(TINY, seed=0)
    network.set_weights(load_member(teacher, store))
    probs = network.predict(x, verbose=0)
    exp = np.exp(probs / 2) if formula == "printed" else np.sqrt(probs)
    return exp / exp.sum(axis=1, keepdims=True)


def plain_fit(recipe, seed, store):
    """Return the weights that `keras.Model.fit` gives to a network without softmax."""
    x, y = DATA.x_train, DATA.y_train
    optimizer, temperature = keras.optimizers.Adam(0.01), 1
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if recipe.noise_std:
        x = x + samples.gaussian_noise(seed, x.shape, noise_std=0.2)
    weights_seed = samples.weights_seed(seed, student=bool(recipe.distillation))
    if recipe.distillation:
        formula = recipe.distillation.formula
        changes = BAGGED_AND_NOISY if formula == "printed" else ADVERSARIAL
        y = smoothed_by_hand(make(seed=seed, **changes), formula, x, store)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        temperature = 2 if formula == "papernot" else 1
    options = {} if backend.use_xla() else {"dropout": HalfWordDropout}
    network = convnet.build(TINY, seed=weights_seed, dtype=recipe.precision, **options)
    last = keras.layers.Rescaling(1 / temperature)
    model = keras.Sequential([keras.Input((28, 28, 1)), *network.layers[:-1], last])
    if recipe.adversarial:
        model = AdversarialTraining(model, eps=0.1, outputs="logits")
    if recipe.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, loss, jit_compile=backend.use_xla())
    for epoch in range(3):
        rows = samples.epoch_rows(seed, epoch, 64, bootstrap=recipe.bootstrap)
        model.fit(x[rows], y[rows], batch_size=24, shuffle=False, verbose=0)
    return network.get_weights()


@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_plain_fit(kind, trained):
    got = load_member(make(kind), trained)
    for a, b in zip(got, plain_fit(make(kind).recipe, 1, trained), strict=True):
        assert a.dtype == b.dtype == np.float32
        # 16 bits are rounded differently by each processor and program.
        atol = 1e-3 if kind in ("float16", "bfloat16") else 1e-4
        assert_allclose(a, b, rtol=0, atol=atol)


def test_members_of_the_same_seed_differ(trained):
    kernels = [load_member(make(kind), trained)[0] for kind in KINDS]
    for i, kernel in enumerate(kernels):
        assert not any(np.allclose(kernel, k, rtol=0, atol=1e-6) for k in kernels[:i])


def test_a_member_does_not_depend_on_those_trained_before_it(trained, tmp_path):
    store = Recorder(tmp_path)
    fit_members([make(seed=2), make()], DATA, store, **ONE_BY_ONE)
    assert store.written == [1, 2, 3, "member"] * 2
    assert_same(load_member(make(), store), load_member(make(), trained))
    assert (load_member(make(seed=2), store)[0] != load_member(make(), store)[0]).all()
    # Their checkpoints are removed.
    names = {path.stem for path in (tmp_path / "member").iterdir()}
    assert names == {make(seed=2).digest, make().digest}


@pytest.mark.parametrize(
    ("kind", "fail", "where", "written"),
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
def test_interrupted(kind, fail, where, written, trained, tmp_path):
    member, other = make(kind), make(kind, seed=2)
    others = [1, 2, 3, "member"]
    if member.teacher:
        fit_members([member.teacher, other.teacher], DATA, Store(tmp_path))
        others = ["labels", *others]
    with pytest.raises((KeyboardInterrupt, OSError), match="stop"):
        fit_members([member], DATA, Recorder(tmp_path, fail, **where), **ONE_BY_ONE)
    store = Recorder(tmp_path)
    # The same trainer trains another member first.
    fit_members([other, member], DATA, store, **ONE_BY_ONE)
    assert store.written == [*others, *written, "member"]
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


def test_the_loss_scale_is_part_of_a_checkpoint(tmp_path):
    member = make("float16")
    with pytest.raises(KeyboardInterrupt):
        fit_members([member], DATA, Recorder(tmp_path, interrupt, after=1))
    _, state = Store(tmp_path).load_checkpoint("member", member.spec)
    # It starts at 2^15 and is halved when a gradient overflows.
    assert any(a.shape == () and 2**10 <= a <= 2**15 for a in state.values())


def test_trained_members_are_not_trained_again(trained, monkeypatch):
    def fit(*arguments):
        raise AssertionError("a member is trained")

    monkeypatch.setattr(BackendTrainer, "fit", fit)
    fit_members([make(kind) for kind in KINDS], DATA, trained)
    fit_members([make(kind) for kind in KINDS], DATA, trained, n_jobs=2)
    with pytest.raises(AssertionError, match="a member is trained"):
        fit_members([make(seed=2)], DATA, trained)


def test_one_process_per_core(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 5)
    assert default_jobs() == (1 if backend.use_xla() else 5)


# `pytest.warns` would suspend the filter of setup.cfg.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_damaged_member_is_trained_again(trained, tmp_path):
    store, path = Recorder(tmp_path), tmp_path / "member" / f"{make().digest}.npz"
    fit_members([make(), make(seed=2)], DATA, store, **ONE_BY_ONE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(DamagedArtefactWarning, match=make().digest):
        fit_members([make(), make(seed=2)], DATA, store)
    assert store.written == [1, 2, 3, "member"] * 3
    assert_same(load_member(make(), store), load_member(make(), trained))


def test_a_teacher_is_trained_first_and_then_left_alone(tmp_path):
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
    initial = convnet.build(TINY, seed=1).get_weights()[0]
    assert_allclose(before[0], initial, rtol=0, atol=1e-6)
    assert abs(load_member(student, store)[0] - initial).max() > 0.1


def test_the_teacher_of_two_students_is_trained_once(tmp_path):
    store = Recorder(tmp_path)
    students = [make("printed"), make("printed", distillation=PAPERNOT)]
    fit_members(students, DATA, store)
    assert store.written.count("member") == 3


@pytest.fixture
def threads_for_workers(monkeypatch):
    """Let joblib's workers be threads of this process."""
    # It would hold for the tests that follow, too.
    monkeypatch.setattr(backend, "make_deterministic", lambda: None)
    with joblib.parallel_config(backend="threading"):
        yield


@pytest.mark.parametrize("workers", ["loky", "threading"])
def test_workers_train_the_same_members(workers, trained, tmp_path, request):
    if workers == "threading":
        request.getfixturevalue("threads_for_workers")
    members = [make(kind) for kind in ("plain", "bagged", "printed", "papernot")]
    store = Store(tmp_path)
    fit_members(members, DATA, store, n_jobs=2)
    members += [member.teacher for member in members[2:]]
    assert all(store.has("member", member.spec) for member in members)
    got, want = (load_ensemble(members, s) for s in (store, trained))
    for a, b in zip(got.members, want.members, strict=True):
        assert_allclose(a(DATA.x_test), b(DATA.x_test), rtol=0, atol=1e-4)


def test_threads_never_share_a_trainer(threads_for_workers, tmp_path, monkeypatch):
    both_are_training = threading.Barrier(2)
    threads_by_trainer = {}
    fit = BackendTrainer.fit

    def noting_fit(self, running, after_epoch):
        threads_by_trainer.setdefault(self, set()).add(threading.get_ident())
        both_are_training.wait(timeout=120)
        fit(self, running, after_epoch)

    monkeypatch.setattr(BackendTrainer, "fit", noting_fit)
    # Two members for each thread: the second finds the trainer that the first has left.
    members = [make(seed=seed, epochs=1) for seed in (1, 2, 3, 4)]
    fit_members(members, DATA, Store(tmp_path), n_jobs=2)
    assert [len(threads) for threads in threads_by_trainer.values()] == [1, 1]


def test_a_trainer_is_kept_for_the_members_that_share_it(monkeypatch):
    monkeypatch.setattr(training, "_make_trainer", lambda recipe: [recipe])
    trainers = training._TrainerInUse()
    first = trainers.get(make().recipe)
    assert trainers.get(make("bagged", epochs=1).recipe) is first
    noisy = trainers.get(make("noisy").recipe)
    assert noisy is not first
    assert trainers.get(make("noisy", noise_std=0.1).recipe) is noisy
    # Only the last one is kept.
    assert trainers.get(make().recipe) is not first


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


def test_load_weights_of_other_members_into_an_ensemble(trained):
    ensemble = load_ensemble([make(), make("bagged")], trained)
    networks = list(ensemble.members)
    others = [make("noisy"), make()]
    load_weights(ensemble, others, trained)
    assert list(ensemble.members) == networks
    for network, member in zip(networks, others, strict=True):
        assert_same(network.get_weights(), load_member(member, trained))
    with pytest.raises(ValueError, match="shorter"):
        load_weights(ensemble, others[:1], trained)


def test_an_untrained_member_cannot_be_loaded(trained):
    member = make(seed=7)
    for load in (load_member, lambda m, store: load_ensemble([make(), m], store)):
        with pytest.raises(LookupError, match=f"does not hold .* {member.digest}"):
            load(member, trained)


def test_unknown_optimizer(tmp_path):
    with pytest.raises(ValueError, match="`optimizer` must be the name") as error:
        fit_members([make(optimizer="adamant")], DATA, Store(tmp_path))
    assert str(error.value).endswith("Received: optimizer='adamant'")


RELU = dataclasses.replace(TINY, logits="relu")


def kill_first_attempts(monkeypatch, count):
    """Let the logits of the first attempts be zero for every image from the start.

    Returns:
        The list to which the seed of each attempt will be added.
    """
    start, seeds = Trainer.start, []

    def start_dead(self, seed):
        state = start(self, seed)
        seeds.append(seed)
        if len(seeds) <= count:
            self.weights(state)[-1][:] = -1e3
        return state

    monkeypatch.setattr(Trainer, "start", start_dead)
    return seeds


def test_dead_network_is_started_again_from_other_weights(tmp_path, monkeypatch):
    member = make(architecture=RELU)
    seeds = kill_first_attempts(monkeypatch, 2)
    store = Recorder(tmp_path)
    fit_members([member], DATA, store)
    assert seeds == [samples.weights_seed(1, attempt=i) for i in range(3)]
    assert len(set(seeds)) == 3
    # The dead networks leave no checkpoint.
    assert store.written == [7, 8, 9, "member"]
    assert restarts(member, store) == 2
    [network] = load_ensemble([member], store)
    assert np.ptp(network.predict(DATA.x_train, verbose=0)) > 0
    # A network of the same seed that is alive from the start is another one.
    monkeypatch.undo()
    alive = Store(tmp_path / "alive")
    fit_members([member], DATA, alive)
    assert restarts(member, alive) == 0
    first = load_member(member, alive)[0]
    assert not np.array_equal(first, load_member(member, store)[0])


def test_network_that_always_dies_is_an_error(tmp_path, monkeypatch):
    seeds = kill_first_attempts(monkeypatch, 100)
    with pytest.raises(RuntimeError, match="All logits were zero after each of 20"):
        fit_members([make(architecture=RELU)], DATA, Store(tmp_path))
    assert len(seeds) == 20


@pytest.mark.parametrize("n_jobs", [0, -1, 1.5])
def test_unsuitable_number_of_processes(n_jobs, tmp_path):
    message = f"`n_jobs` must be an integer >= 1. Received: n_jobs={n_jobs}"
    with pytest.raises(ValueError, match=message):
        fit_members([make()], DATA, Store(tmp_path), n_jobs=n_jobs)


@pytest.mark.skipif(bool(ONE_BY_ONE), reason="for the TensorFlow backend")
def test_stacks_are_not_for_tensorflow(tmp_path):
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax.* stack=2 with .*tensorf"):
        fit_members([make()], DATA, Store(tmp_path), stack=2)
