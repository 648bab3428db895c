"""Train members from their recipes, in one process or several, and resume.

A member is a file in the store. It is trained once, whatever table asks for it.
"""

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import joblib
import numpy as np

from advens import backend, process, program
from advens.arrays import Floats, Images, Labels
from advens.checks import check_count
from advens.datasets import Dataset
from advens.defenses import distillation
from advens.models import convnet
from advens.models.ensemble import Ensemble
from advens.storage.store import Store
from advens.training import samples, state
from advens.training.recipe import Member, Recipe, teachers, trainer_key
from advens.training.state import KIND, MemberInTraining
from advens.training.trainer import Trainer

_MAX_ATTEMPTS: Final = 20


def fit_members(
    members: Sequence[Member],
    dataset: Dataset,
    store: Store,
    *,
    n_jobs: int = 1,
    stack: int | None = None,
) -> None:
    """Train the members that the store lacks.

    If it is killed and called again, it repeats at most the current epoch of each
    member, and on a CPU ends with the same weights. On a GPU, TensorFlow ends with the
    same weights only after `backend.make_deterministic`. Worker processes call it.

    Args:
        members: any number, in any mixture.
        dataset: the data that they are trained on.
        store: where they are read and written.
        n_jobs: number of processes, each with its share of the cores; 1 trains here.
            `joblib.parallel_config` can put another joblib backend in their place, such
            as a Dask cluster that shares the store's directory.
        stack: on the JAX backend, how many members of one architecture train in one
            program, see `stacked_trainer`. None: one on a CPU; on a GPU as many as fit
            into its memory.
    """
    check_jobs(n_jobs, stack)
    if first := teachers(members):
        fit_members(first, dataset, store, n_jobs=n_jobs, stack=stack)
    # Several rows may share a member.
    distinct = dict.fromkeys(members)
    missing = [m for m in distinct if store.load(KIND, m.spec) is None]
    train = dataset.x_train, dataset.y_train
    if n_jobs == 1 or len(missing) < 2:
        trainers = _TrainerInUse()
        for group in _groups(missing):
            _fit(group, *train, store, trainers, stack=stack)
        return
    n_jobs = min(n_jobs, len(missing))
    threads = max(1, joblib.cpu_count() // n_jobs)
    # joblib shares large arrays as memmaps.
    joblib.Parallel(n_jobs=n_jobs)(
        joblib.delayed(program.with_keras)(
            __name__, fit_alone.__name__, member, *train, store.root, threads
        )
        for member in missing
    )


def fit_one(member: Member, x: Images, y: Labels, store: Store) -> None:
    """Train a member whose teacher, if any, is trained. A thread keeps its trainer."""
    if not store.has(KIND, member.spec):
        _fit([member], x, y, store, _of_this_thread.trainers)


def default_jobs() -> int:
    """Return in how many processes members train fastest by default.

    On a CPU it is one per core. On a GPU and on JAX, whose threads cannot be divided
    among processes, it is one.
    """
    return 1 if backend.use_xla() else joblib.cpu_count()


def check_jobs(n_jobs: int, stack: int | None) -> None:
    """Raise a `ValueError` if `fit_members` cannot train with these arguments."""
    check_count("n_jobs", n_jobs)
    if stack is None:
        return
    check_count("stack", stack)
    if (name := backend.name()) != "jax":
        raise ValueError(
            "`stack` is for Keras's JAX backend: set KERAS_BACKEND=jax, or leave it "
            f"out. Received: stack={stack} with the backend {name!r}"
        )
    if n_jobs > 1:
        raise ValueError(
            "`stack` trains in one process: leave out either `stack` or `n_jobs`. "
            f"Received: stack={stack}, n_jobs={n_jobs}"
        )


def load_member(member: Member, store: Store) -> list[Floats]:
    """Read the weights of a trained member, in the order of `Model.get_weights`.

    Raises:
        LookupError: if the store does not hold it.
    """
    arrays = store.load(KIND, member.spec)
    if arrays is None:
        raise LookupError(f"{store.root} does not hold the member {member.digest}")
    return [arrays[name] for name in sorted(arrays) if name.startswith("weight")]


def load_ensemble(members: Sequence[Member], store: Store) -> Ensemble:
    """Return the ensemble of trained members, in float32 and in their order."""
    architectures = [member.recipe.architecture for member in members]
    ensemble = Ensemble([convnet.build(a, seed=0) for a in architectures])
    load_weights(ensemble, members, store)
    return ensemble


def load_weights(ensemble: Ensemble, members: Sequence[Member], store: Store) -> None:
    """Give an ensemble the weights of other members of the same architectures.

    What was compiled for the ensemble stays in use.
    """
    for network, member in zip(ensemble.members, members, strict=True):
        network.set_weights(load_member(member, store))


class _TrainerInUse:
    """Keeps one trainer: members who share it come one after another."""

    def __init__(self) -> None:
        self._key: Recipe | None = None
        self._trainer: Trainer | None = None

    def get(self, recipe: Recipe) -> Trainer:
        """Return the trainer for a recipe, made anew if it is not the kept one."""
        if self._trainer is None or self._key != trainer_key(recipe):
            self._trainer = _make_trainer(recipe)
            self._key = trainer_key(recipe)
        return self._trainer


class _OfThisThread(threading.local):
    """The trainer that a thread of a worker process keeps from member to member."""

    def __init__(self) -> None:
        self.trainers = _TrainerInUse()


_of_this_thread = _OfThisThread()


def _make_trainer(recipe: Recipe) -> Trainer:
    if backend.name() == "jax":
        from advens.training.stacked_trainer import StackedTrainer

        return StackedTrainer(recipe)
    from advens.training.keras_trainer import KerasTrainer

    return KerasTrainer(recipe)


def fit_alone(member: Member, x: Images, y: Labels, root: Path, threads: int) -> None:
    """Train a member in a process that does nothing else, and ends with its parent."""
    process.keep_memory()
    backend.make_deterministic()
    backend.use_full_float32()
    backend.limit_threads(threads)
    run = os.getppid()

    def stop_if_orphaned() -> None:
        # The run was killed. Started again, it trains this member itself.
        if os.getppid() != run:
            os._exit(1)

    trainers = _of_this_thread.trainers
    _fit([member], x, y, Store(root), trainers, after_epoch=stop_if_orphaned)


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """Divide members into groups that share a trainer."""
    groups: dict[Recipe, list[Member]] = {}
    for member in members:
        groups.setdefault(trainer_key(member.recipe), []).append(member)
    return list(groups.values())


def _fit(
    members: Sequence[Member],
    x: Images,
    y: Labels,
    store: Store,
    trainers: _TrainerInUse,
    *,
    stack: int | None = None,
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Train members of one group, `stack` at a time or as many as fit."""
    trainer = trainers.get(members[0].recipe)

    def save(training: MemberInTraining) -> None:
        state.save_checkpoint(training, store)
        after_epoch()

    waiting = list(members)
    running: list[MemberInTraining] = []
    while waiting or running:
        while waiting and len(running) < (stack or 1):
            running.append(_started(waiting.pop(0), x, y, trainer, store))
            stack = stack or trainer.default_stack(running[0])
        trainer.fit(running, save)
        for training in running:
            if not training.alive:
                _start_again(training, trainer)
            elif not training.is_running:
                _save_weights(training, trainer, store)
        running = [training for training in running if training.is_running]


def _started(
    member: Member, x: Images, y: Labels, trainer: Trainer, store: Store
) -> MemberInTraining:
    """Return a member at its last checkpoint, or at its start if it has none."""
    recipe = member.recipe
    if recipe.noise_std:
        noise = samples.gaussian_noise(member.seed, x.shape, noise_std=recipe.noise_std)
        x = np.add(x, noise, out=noise)
    targets = _smoothed_labels(member, x, store) if recipe.distillation else y
    if checkpoint := state.load_checkpoint(member, store):
        return MemberInTraining(member, x, targets, *checkpoint)
    return MemberInTraining(member, x, targets, trainer.start(_weights_seed(member, 0)))


def _start_again(training: MemberInTraining, trainer: Trainer) -> None:
    training.attempt, training.epoch, training.alive = training.attempt + 1, 0, True
    if training.attempt == _MAX_ATTEMPTS:
        raise RuntimeError(
            f"All logits were zero after each of {training.attempt} attempts to train "
            "a network. Try logits='linear' or, if it is distilled, the other formula. "
            f"Received: {training.member.recipe}"
        )
    training.state = trainer.start(_weights_seed(training.member, training.attempt))


def _save_weights(training: MemberInTraining, trainer: Trainer, store: Store) -> None:
    weights = enumerate(trainer.weights(training.state))
    arrays = {f"weight_{i:03d}": weight for i, weight in weights}
    arrays["attempt"] = np.array(training.attempt)
    store.save(KIND, training.member.spec, arrays)


def _weights_seed(member: Member, attempt: int) -> int:
    distilled = member.recipe.distillation is not None
    return samples.weights_seed(member.seed, student=distilled, attempt=attempt)


def _smoothed_labels(member: Member, x: Images, store: Store) -> Floats:
    """Return the smoothed labels of a member's teacher, which are computed once."""
    teacher, settings = member.teacher, member.recipe.distillation
    if teacher is None or settings is None:
        raise ValueError(f"The member {member.digest} is not distilled")
    spec = {"teacher": teacher.spec, "distillation": dataclasses.asdict(settings)}
    arrays = store.load("labels", spec)
    if arrays is None:
        labels = distillation.smoothed_labels(
            load_ensemble([teacher], store)[0],
            x,
            temperature=settings.temperature,
            formula=settings.formula,
        )
        arrays = {"labels": labels}
        store.save("labels", spec, arrays)
    return arrays["labels"]
