"""Fit members from their recipes, one after another or in processes, and resume.

A member is an artefact of the store. It is trained once, whatever table asks for it.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import joblib
import keras
import numpy as np

from advens import defenses, models, pipelines
from advens.datasets import Dataset
from advens.defenses import Adversarial, Distillation
from advens.ensemble import Ensemble, logits_model
from advens.gradients import use_xla
from advens.recipes import Member, teachers
from advens.store import Store

KIND: Final = "member"


def make_optimizer(name: str, learning_rate: float) -> keras.optimizers.Optimizer:
    """Return a Keras optimizer by its name.

    Raises:
        ValueError: if Keras has none of that name.
    """
    config = {"class_name": name, "config": {"learning_rate": learning_rate}}
    try:
        return keras.optimizers.get(config)
    except ValueError:
        raise ValueError(
            "`optimizer` must be the name of a Keras optimizer, such as 'adam' or "
            f"'sgd'. Received: optimizer={name!r}"
        ) from None


def fit_members(
    members: Sequence[Member], dataset: Dataset, store: Store, *, n_jobs: int = 1
) -> None:
    """Train the members that the store lacks.

    Killed and called again, it repeats at most the current epoch of each member in
    flight, and ends with the same weights.

    Args:
        members: any number, in any mixture.
        dataset: the data that they are trained on.
        store: where they are read and written.
        n_jobs: number of processes, each with its share of the cores; 1 trains here.
            `joblib.parallel_config` can put another joblib backend, such as a Dask
            cluster that shares the store's directory, in their place.
    """
    if first := teachers(members):
        fit_members(first, dataset, store, n_jobs=n_jobs)
    # Each once, if several rows share it.
    asked = dict.fromkeys(members)
    missing = [m for m in asked if store.load(KIND, m.spec) is None]
    if n_jobs == 1 or len(missing) < 2:
        for member in missing:
            fit_member(member, dataset, store)
        return
    threads = max(1, joblib.cpu_count() // n_jobs)
    train = dataset.x_train, dataset.y_train  # joblib shares large arrays as memmaps
    joblib.Parallel(n_jobs=min(n_jobs, len(missing)))(
        joblib.delayed(_fit_in_worker)(member, *train, store.root, threads)
        for member in missing
    )


def fit_member(member: Member, dataset: Dataset, store: Store) -> None:
    """Train one member to its end, from its last checkpoint if there is one.

    Raises:
        LookupError: if the store does not hold the teacher of a distilled member.
    """
    _fit(member, dataset.x_train, dataset.y_train, store)


def load_member(member: Member, store: Store) -> list[np.ndarray]:
    """Read the weights of a trained member, in the order of `Model.get_weights`.

    Raises:
        LookupError: if the store does not hold it.
    """
    arrays = store.load(KIND, member.spec)
    if arrays is None:
        raise LookupError(f"{store.root} does not hold the member {member.digest}")
    return [arrays[f"weight_{i:03d}"] for i in range(len(arrays))]


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


def be_deterministic() -> None:
    """Make this process compute the same bits at every run, on a GPU too.

    On a CPU it costs nothing that could be measured (docs/protocol.md).
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def _fit_in_worker(
    member: Member, x: np.ndarray, y: np.ndarray, root: Path, threads: int
) -> None:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        be_deterministic()
        if tf.config.threading.get_intra_op_parallelism_threads() != threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
    run = os.getppid()

    def stop_if_orphaned() -> None:
        # The run was killed: started again, it trains this member itself.
        if os.getppid() != run:
            os._exit(1)

    _fit(member, x, y, Store(root), after_epoch=stop_if_orphaned)


def _fit(
    member: Member,
    x: np.ndarray,
    y: np.ndarray,
    store: Store,
    *,
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    recipe = member.recipe
    if recipe.noise_std:
        noise_std = recipe.noise_std
        x = x + pipelines.gaussian_noise(member.seed, x.shape, noise_std=noise_std)
    if recipe.distillation:
        y = _stored_labels(member, x, store)
    trainer = _trainer(
        recipe.architecture,
        recipe.optimizer,
        recipe.learning_rate,
        recipe.precision,
        recipe.adversarial,
        recipe.distillation,
    )
    checkpoint = store.load_checkpoint(KIND, member.spec)
    if checkpoint:
        first_epoch, state = checkpoint
        trainer.restore(state)
    else:
        first_epoch = 0
        distilled = recipe.distillation is not None
        trainer.start(pipelines.weights_seed(member.seed, student=distilled))
    if first_epoch < recipe.epochs:
        batches = pipelines.batches(
            x,
            y,
            seed=member.seed,
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            first_epoch=first_epoch,
            bootstrap=recipe.bootstrap,
        )

        def save(epoch: int, logs: Any) -> None:
            store.save_checkpoint(KIND, member.spec, epoch + 1, trainer.state())
            after_epoch()

        trainer.model.fit(
            batches,
            initial_epoch=first_epoch,
            epochs=recipe.epochs,
            steps_per_epoch=-(-len(x) // recipe.batch_size),
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=save)],
            shuffle=False,  # `batches` has shuffled
            verbose=0,
        )
    weights = trainer.network.get_weights()
    store.save(KIND, member.spec, {f"weight_{i:03d}": w for i, w in enumerate(weights)})


def _stored_labels(member: Member, x: np.ndarray, store: Store) -> np.ndarray:
    """Return the teacher's smoothed labels, which are computed once."""
    spec = {
        "teacher": member.teacher.spec,  # type: ignore[union-attr]
        "distillation": dataclasses.asdict(member.recipe.distillation),  # type: ignore
    }
    if (arrays := store.load("labels", spec)) is None:
        teacher = load_ensemble([member.teacher], store)[0]  # type: ignore[list-item]
        labels = defenses.smoothed_labels(teacher, x, **spec["distillation"])
        arrays = {"labels": labels}
        store.save("labels", spec, arrays)
    return arrays["labels"]


class Trainer:
    """A compiled network that serves one member after another.

    Args:
        architecture: of the network.
        optimizer: see `Recipe`.
        learning_rate: see `Recipe`.
        precision: see `Recipe`.
        adversarial: see `Recipe`.
        distillation: see `Recipe`.

    Attributes:
        network: the network, which gives probabilities.
        model: what to `fit`: it shares the network's weights.
    """

    def __init__(
        self,
        architecture: models.Architecture,
        optimizer: str,
        learning_rate: float,
        precision: str,
        adversarial: Adversarial | None,
        distillation: Distillation | None,
    ) -> None:
        self._build = functools.partial(models.build, architecture, dtype=precision)
        self.network = self._build(seed=0)
        # From logits: Keras clips probabilities on some backends.
        loss: keras.losses.Loss
        if distillation:
            options = dataclasses.asdict(distillation)
            self.model = defenses.student_model(self.network, **options)
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        else:
            self.model = logits_model(self.network)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if adversarial:
            self.model = defenses.AdversarialTraining(
                self.model, **dataclasses.asdict(adversarial), outputs="logits"
            )
        scaled = make_optimizer(optimizer, learning_rate)
        if precision == "mixed_float16":
            # Keras does so itself only where the whole model has that policy.
            scaled = keras.optimizers.LossScaleOptimizer(scaled)
        self.model.compile(
            optimizer=scaled,
            loss=loss,
            jit_compile=use_xla(),
        )
        self.model.optimizer.build(self.model.trainable_variables)
        self._variables = [*self.network.variables, *self.model.optimizer.variables]
        self._initial = self.state()

    def start(self, seed: int) -> None:
        """Put a new member with its own weights and dropout masks in place."""
        self.restore(self._initial)
        fresh = self._build(seed=seed).variables
        for variable, value in zip(self.network.variables, fresh, strict=True):
            variable.assign(value)

    def state(self) -> dict[str, np.ndarray]:
        """Return all that a resumed training needs."""
        arrays = map(keras.ops.convert_to_numpy, self._variables)
        return {f"variable_{i:03d}": np.array(a) for i, a in enumerate(arrays)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Return to a `state`."""
        for variable, value in zip(self._variables, state.values(), strict=True):
            variable.assign(value)


# One is kept: members of one architecture come one after another.
_trainer = functools.lru_cache(maxsize=1)(Trainer)
