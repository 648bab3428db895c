"""A compiled network and its training step, for one member after another."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Final

import keras
import numpy as np
from keras import ops

from advens import defenses, models, pipelines
from advens.defenses import Adversarial, Distillation
from advens.ensemble import logits_model
from advens.gradients import compiled, use_xla
from advens.recipes import Member

_PROBE_IMAGES: Final = 500


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
        logits = logits_model(self.network)
        self._is_alive = compiled(
            lambda x: ops.any(ops.not_equal(logits(x, training=False), 0)), self.network
        )
        self._variables = [*self.network.variables, *self.model.optimizer.variables]
        self._initial = self.state()

    def start(self, seed: int) -> None:
        """Put a new member with its own weights and dropout masks in place."""
        self.restore(self._initial)
        fresh = self._build(seed=seed).variables
        for variable, value in zip(self.network.variables, fresh, strict=True):
            variable.assign(value)

    def fit(
        self,
        member: Member,
        x: np.ndarray,
        y: np.ndarray,
        *,
        first_epoch: int,
        after_epoch: Callable[[int], None],
    ) -> bool:
        """Train the rest of a member's epochs.

        Args:
            member: whose weights are in place.
            x: its images, with its noise.
            y: its labels.
            first_epoch: the number of epochs that are done.
            after_epoch: called with the number of epochs done after each one.

        Returns:
            False if the network died: where logits are ReLU'd (docs/protocol.md, point
            26), all of them can become zero for every image, which no step can change.
        """
        recipe, alive = member.recipe, True

        def end(epoch: int, logs: Any) -> None:
            nonlocal alive
            if alive := bool(self._is_alive(x[:_PROBE_IMAGES])):
                after_epoch(epoch + 1)
            else:
                self.model.stop_training = True

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
            self.model.fit(
                batches,
                initial_epoch=first_epoch,
                epochs=recipe.epochs,
                steps_per_epoch=-(-len(x) // recipe.batch_size),
                callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=end)],
                shuffle=False,  # `batches` has shuffled
                verbose=0,
            )
        return alive

    def state(self) -> dict[str, np.ndarray]:
        """Return all that a resumed training needs."""
        arrays = map(keras.ops.convert_to_numpy, self._variables)
        return {f"variable_{i:03d}": np.array(a) for i, a in enumerate(arrays)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Return to a `state`."""
        for variable, value in zip(self._variables, state.values(), strict=True):
            variable.assign(value)
