"""Fit members from their recipes, one after another or in processes, and resume.

A member is an artefact of the store. It is trained once, whatever table asks for it.
"""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import joblib
import keras
import numpy as np

from advens import distillation, models, pipelines, process
from advens.datasets import Dataset
from advens.ensemble import Ensemble
from advens.gradients import use_xla
from advens.recipes import Member, Recipe, teachers
from advens.store import Store
from advens.trainer import InTraining, Trainer

KIND: Final = "member"
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

    Killed and called again, it repeats at most the current epoch of each member in
    flight, and on a CPU ends with the same weights. On a GPU, TensorFlow needs
    `process.be_deterministic` for that, which worker processes call and this one does
    not.

    Args:
        members: any number, in any mixture.
        dataset: the data that they are trained on.
        store: where they are read and written.
        n_jobs: number of processes, each with its share of the cores; 1 trains here.
            `joblib.parallel_config` can put another joblib backend, such as a Dask
            cluster that shares the store's directory, in their place.
        stack: on the JAX backend, how many members of one architecture train in one
            program, see `advens.stacked`; None for one on a CPU, and on a GPU for as
            many as fit into its memory.
    """
    check_jobs(n_jobs, stack)
    if first := teachers(members):
        fit_members(first, dataset, store, n_jobs=n_jobs, stack=stack)
    # Each once, if several rows share it.
    asked = dict.fromkeys(members)
    missing = [m for m in asked if store.load(KIND, m.spec) is None]
    train = dataset.x_train, dataset.y_train
    if n_jobs == 1 or len(missing) < 2:
        for alike in _groups(missing):
            _fit(alike, *train, store, stack=stack)
        return
    n_jobs = min(n_jobs, len(missing))
    threads = max(1, joblib.cpu_count() // n_jobs)
    # joblib shares large arrays as memmaps
    joblib.Parallel(n_jobs=n_jobs)(
        joblib.delayed(_fit_in_worker)(member, *train, store.root, threads)
        for member in missing
    )


def default_jobs() -> int:
    """Return in how many processes members train fastest: one a core, or one on a GPU.

    One on JAX, too, whose threads are not shared out among processes.
    """
    return 1 if use_xla() else joblib.cpu_count()


def check_jobs(n_jobs: int, stack: int | None) -> None:
    """Raise a `ValueError` unless members can be trained so, see `fit_members`."""
    if n_jobs < 1:
        raise ValueError(f"`n_jobs` must be >= 1. Received: n_jobs={n_jobs}")
    if stack is None:
        return
    if stack < 1:
        raise ValueError(f"`stack` must be >= 1. Received: stack={stack}")
    if (backend := keras.backend.backend()) != "jax":
        raise ValueError(
            "`stack` is for Keras's JAX backend: set KERAS_BACKEND=jax, or leave it "
            f"out. Received: stack={stack} with the backend {backend!r}"
        )
    if n_jobs > 1:
        raise ValueError(
            "`stack` trains in one process: leave it or `n_jobs` out. "
            f"Received: stack={stack}, n_jobs={n_jobs}"
        )


def load_member(member: Member, store: Store) -> list[np.ndarray]:
    """Read the weights of a trained member, in the order of `Model.get_weights`.

    Raises:
        LookupError: if the store does not hold it.
    """
    arrays = store.load(KIND, member.spec)
    if arrays is None:
        raise LookupError(f"{store.root} does not hold the member {member.digest}")
    return [arrays[name] for name in sorted(arrays) if name.startswith("weight")]


def restarts(member: Member, store: Store) -> int:
    """Return how often a trained member was started again, see `Trainer.fit`."""
    arrays = store.load(KIND, member.spec) or {}
    return int(arrays.get("attempt", 0))


def load_ensemble(
    members: Sequence[Member], store: Store, *, into: Ensemble | None = None
) -> Ensemble:
    """Return the ensemble of trained members, in float32.

    Args:
        members: in their order.
        store: which holds them.
        into: an ensemble made by this function, whose weights are overwritten if it has
            the same networks. What was compiled for it is then compiled no more.
    """
    architectures = tuple(member.recipe.architecture for member in members)
    if into is None or getattr(into, "architectures", None) != architectures:
        into = Ensemble([models.build(a, seed=0) for a in architectures])
        into.architectures = architectures
    for network, member in zip(into.members, members, strict=True):
        network.set_weights(load_member(member, store))
    return into


def _fit_in_worker(
    member: Member, x: np.ndarray, y: np.ndarray, root: Path, threads: int
) -> None:
    process.keep_memory()
    process.be_deterministic()
    process.use_threads(threads)
    run = os.getppid()

    def stop_if_orphaned() -> None:
        # The run was killed: started again, it trains this member itself.
        if os.getppid() != run:
            os._exit(1)

    # A cluster's worker may have several threads, and they share a trainer.
    with _one_at_a_time:
        _fit([member], x, y, Store(root), after_epoch=stop_if_orphaned)


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """Part members into those that one trainer can train at a time."""
    groups: dict[Recipe, list[Member]] = {}
    for member in members:
        # Noise and smoothed labels are a member's own: they are stacked, or are not.
        noise_std = float(member.recipe.noise_std > 0)
        key = dataclasses.replace(
            member.recipe, epochs=0, bootstrap=False, noise_std=noise_std
        )
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def _fit(
    members: Sequence[Member],
    x: np.ndarray,
    y: np.ndarray,
    store: Store,
    *,
    stack: int | None = None,
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Train members of one group, as many at a time as fit or may."""
    recipe = members[0].recipe
    trainer = _trainer(
        recipe.architecture,
        recipe.optimizer,
        recipe.learning_rate,
        recipe.precision,
        recipe.adversarial,
        recipe.distillation,
    )

    def save(one: InTraining) -> None:
        state = {**one.state, "attempt": np.array(one.attempt)}
        step = one.attempt * one.member.recipe.epochs + one.epoch
        store.save_checkpoint(KIND, one.member.spec, step, state)
        after_epoch()

    waiting = list(members)
    running: list[InTraining] = []
    while waiting or running:
        while waiting and len(running) < (stack or 1):
            running.append(_resumed(waiting.pop(0), x, y, trainer, store))
            stack = stack or trainer.stack_size(running[0])
        trainer.fit(running, save)
        for one in running:
            if not one.alive:
                _start_again(one, trainer)
            elif not one.is_running:
                _save_weights(one, trainer, store)
        running = [one for one in running if one.is_running]


def _resumed(
    member: Member, x: np.ndarray, y: np.ndarray, trainer: Trainer, store: Store
) -> InTraining:
    """Return a member as its last checkpoint has it, or at its start."""
    recipe = member.recipe
    if recipe.noise_std:
        noise_std = recipe.noise_std
        noise = pipelines.gaussian_noise(member.seed, x.shape, noise_std=noise_std)
        x = np.add(x, noise, out=noise)
    if recipe.distillation:
        y = _stored_labels(member, x, store)
    if checkpoint := store.load_checkpoint(KIND, member.spec):
        step, state = checkpoint
        attempt = int(state.pop("attempt"))
        epoch = step - attempt * recipe.epochs
        return InTraining(member, x, y, state, attempt, epoch)
    return InTraining(member, x, y, trainer.start(_weights_seed(member, 0)))


def _start_again(one: InTraining, trainer: Trainer) -> None:
    one.attempt, one.epoch, one.alive = one.attempt + 1, 0, True
    if one.attempt == _MAX_ATTEMPTS:
        raise RuntimeError(
            f"No network of this recipe stays alive in {one.attempt} attempts: all "
            "logits become zero. Try logits='linear', or the other formula if it is a "
            f"student. Recipe: {one.member.recipe}"
        )
    one.state = trainer.start(_weights_seed(one.member, one.attempt))


def _save_weights(one: InTraining, trainer: Trainer, store: Store) -> None:
    weights = enumerate(trainer.weights(one.state))
    arrays = {f"weight_{i:03d}": weight for i, weight in weights}
    arrays["attempt"] = np.array(one.attempt)
    store.save(KIND, one.member.spec, arrays)


def _weights_seed(member: Member, attempt: int) -> int:
    distilled = member.recipe.distillation is not None
    return pipelines.weights_seed(member.seed, student=distilled, attempt=attempt)


def _stored_labels(member: Member, x: np.ndarray, store: Store) -> np.ndarray:
    """Return the teacher's smoothed labels, which are computed once."""
    spec = {
        "teacher": member.teacher.spec,  # type: ignore[union-attr]
        "distillation": dataclasses.asdict(member.recipe.distillation),  # type: ignore
    }
    if (arrays := store.load("labels", spec)) is None:
        teacher = load_ensemble([member.teacher], store)[0]  # type: ignore[list-item]
        labels = distillation.smoothed_labels(teacher, x, **spec["distillation"])
        arrays = {"labels": labels}
        store.save("labels", spec, arrays)
    return arrays["labels"]


# One is kept: members of one architecture come one after another.
_trainer = functools.lru_cache(maxsize=1)(Trainer)
_one_at_a_time = threading.Lock()
