"""Stacked training on Keras's JAX backend: an epoch of several members, one program.

The members' weights, optimizers and dropout seeds are stacked along a first axis, over
which `jax.vmap` maps the training step. `jax.lax.scan` runs the steps of the epoch with
the data on the device. Convolutions are `fast_layers.MatmulConv2D` by default.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Final

import jax
import jax.numpy as jnp
import keras
import numpy as np

from advens import backend
from advens.models.architecture import KerasArchitecture
from advens.models.fast_layers import MatmulConv2D
from advens.training.recipe import Recipe
from advens.training.state import MemberInTraining
from advens.training.trainer import Trainer

# The share of the device's memory that members may take; the rest is for the data and
# the compiler.
_MEMORY_SHARE: Final = 0.5

Values = list[jax.Array]
Step = Callable[[Values, jax.Array, jax.Array], tuple[Values, jax.Array]]


class StackedTrainer(Trainer):
    """Trains several members at a time, on JAX.

    Args:
        recipe: see `Trainer`.
        conv: see `Trainer`.
    """

    def __init__(
        self, recipe: Recipe, *, conv: type[keras.layers.Conv2D] = MatmulConv2D
    ) -> None:
        super().__init__(recipe, conv=conv)
        self._epoch_program = epoch_program(self)

    def fit(
        self,
        running: Sequence[MemberInTraining],
        after_epoch: Callable[[MemberInTraining], None],
    ) -> None:
        """Train a stack until a member is done or dead, see `Trainer.fit`."""
        recipe = running[0].member.recipe
        own_x = recipe.noise_std > 0
        own_y = recipe.distillation is not None
        x = _on_device([training.x for training in running], own_x)
        y = _on_device([training.y for training in running], own_y)
        values = [
            jnp.stack([training.state[name] for training in running])
            for name in self.variables
        ]
        while all(training.is_running for training in running):
            orders = np.stack([training.rows(training.epoch) for training in running])
            values, _, alive = self._epoch_program(
                values,
                x,
                y,
                jnp.asarray(orders, "int32"),
                own_x=own_x,
                own_y=own_y,
                batch_size=recipe.batch_size,
            )
            arrays = [np.asarray(value) for value in values]
            for i, training in enumerate(running):
                training.epoch += 1
                training.alive = bool(alive[i])
                training.state = {
                    name: array[i]
                    for name, array in zip(self.variables, arrays, strict=True)
                }
                if training.alive:
                    after_epoch(training)

    def default_stack(self, training: MemberInTraining) -> int:
        """Return how many members like this one fit into half of a GPU's memory.

        On a CPU it is one: there, members train faster one after another than in a
        stack (docs/performance.md). It is one, too, where the memory is not known, and
        for a network of one's own, whose layers may be any.

        A member needs memory for its weights, their gradients and the optimizer's
        moments, and for the activations of a batch with the patches of its
        convolutions, forward and backward, twice in adversarial training. It may also
        have images and labels of its own.
        """
        recipe = training.member.recipe
        own = isinstance(recipe.architecture, KerasArchitecture)
        if own or not backend.on_gpu():
            return 1
        passes = 4 if recipe.adversarial else 2
        numbers = 2 * sum(value.size for value in training.state.values())
        for layer in self.network.layers:
            size = int(np.prod(layer.output.shape[1:]))
            if isinstance(layer, keras.layers.Conv2D):
                patches = layer.output.shape[1:3] + layer.kernel.shape[:3]
                size += int(np.prod(patches))
            numbers += passes * recipe.batch_size * size
        if recipe.noise_std:
            numbers += training.x.size
        if recipe.distillation:
            numbers += training.y.size
        return max(1, int(_MEMORY_SHARE * _device_bytes() / (4 * numbers)))


def training_step(trainer: Trainer) -> Step:
    """Return one training step of one member, as a pure function.

    It maps the values of `trainer.variables` and a batch to the new values and the
    loss, and is the step of `keras.Model.fit`.
    """
    model, optimizer = trainer.model, trainer.model.optimizer
    positions = {id(v): i for i, v in enumerate(trainer.variables.values())}
    groups = [
        [positions[id(variable)] for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
    ]

    def loss(
        trainable: Values,
        others: Values,
        optimizing: Values,
        x: jax.Array,
        y: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, Values]]:
        scaled, (unscaled, _, others, _) = model.compute_loss_and_updates(
            trainable,
            others,
            [],
            x,
            y,
            None,
            training=True,
            optimizer_variables=optimizing,
        )
        return scaled, (unscaled, others)

    gradient = jax.grad(loss, has_aux=True)

    def step(values: Values, x: jax.Array, y: jax.Array) -> tuple[Values, jax.Array]:
        trainable, others, optimizing = ([values[i] for i in group] for group in groups)
        grads, (unscaled, others) = gradient(trainable, others, optimizing, x, y)
        trainable, optimizing = optimizer.stateless_apply(optimizing, grads, trainable)
        updated = list(values)
        for group, news in zip(groups, (trainable, others, optimizing), strict=True):
            for i, value in zip(group, news, strict=True):
                updated[i] = value
        return updated, unscaled

    return step


def epoch_program(trainer: Trainer) -> Callable:
    """Return the compiled epoch of a stack of `m` members.

    Called with the stacked values of `trainer.variables`, the images `x` and labels `y`
    and the order `rows`, `(m, n)`, in which each member visits them, it returns the new
    values, the losses `(m, steps)` and whether each member is alive, see
    `Trainer.is_alive`. `x` and `y` are shared by the members, or stacked too: `own_x`
    and `own_y` say so. The memory of the given values is reused.
    """
    step = training_step(trainer)

    def epoch(
        values: Values,
        x: jax.Array,
        y: jax.Array,
        rows: jax.Array,
        *,
        batch_size: int,
    ) -> tuple[Values, jax.Array, jax.Array]:
        def step_on(values: Values, rows: jax.Array) -> tuple[Values, jax.Array]:
            return step(values, x[rows], y[rows])

        whole = len(rows) // batch_size * batch_size
        batches = rows[:whole].reshape(-1, batch_size)
        values, losses = jax.lax.scan(step_on, values, batches)
        if whole < len(rows):
            values, last = step_on(values, rows[whole:])
            losses = jnp.append(losses, last)
        variables = trainer.variables.values()
        with keras.StatelessScope(zip(variables, values, strict=True)):
            alive = trainer.is_alive(x)
        return values, losses, alive

    def stack(
        values: Values,
        x: jax.Array,
        y: jax.Array,
        rows: jax.Array,
        own_x: bool,
        own_y: bool,
        batch_size: int,
    ) -> tuple[Values, jax.Array, jax.Array]:
        axes = (0, 0 if own_x else None, 0 if own_y else None, 0)
        of_member = functools.partial(epoch, batch_size=batch_size)
        return jax.vmap(of_member, in_axes=axes)(values, x, y, rows)

    static = ("own_x", "own_y", "batch_size")
    return jax.jit(stack, static_argnames=static, donate_argnums=0)


def _device_bytes() -> int:
    # There are no statistics where the allocator keeps none.
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 0)


def _on_device(arrays: Sequence[np.ndarray], own: bool) -> jax.Array:
    return jnp.stack(arrays) if own else jnp.asarray(arrays[0])
