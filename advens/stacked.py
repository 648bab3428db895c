"""Stacked training on Keras's JAX backend: an epoch of several members, one program.

The members' weights, optimizers and dropout seeds are stacked along a first axis, over
which `jax.vmap` maps the training step; `jax.lax.scan` runs the steps of the epoch with
the data on the device. Convolutions are `layers.MatmulConv2D`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import keras
import numpy as np

from advens.gradients import on_gpu

if TYPE_CHECKING:
    from advens.trainer import InTraining, Trainer

# Of the memory, for the members; the rest is left to the data and the compiler.
_SHARE: Final = 0.5


def training_step(trainer: "Trainer") -> Callable:
    """Return one training step of one member, as a pure function.

    It maps the values of `trainer.variables` and a batch to the new values and the
    loss, and is the step of `keras.Model.fit`.
    """
    model, optimizer = trainer.model, trainer.model.optimizer
    places = {id(variable): i for i, variable in enumerate(trainer.variables)}
    groups = [
        [places[id(variable)] for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
    ]

    def loss(trainable: Any, rest: Any, optimizing: Any, x: Any, y: Any) -> Any:
        scaled, (unscaled, _, rest, _) = model.compute_loss_and_updates(
            trainable,
            rest,
            [],
            x,
            y,
            None,
            training=True,
            optimizer_variables=optimizing,
        )
        return scaled, (unscaled, rest)

    def step(values: Sequence[Any], x: Any, y: Any) -> tuple[list[Any], Any]:
        trainable, rest, optimizing = ([values[i] for i in group] for group in groups)
        by_weights = jax.grad(loss, has_aux=True)
        grads, (unscaled, rest) = by_weights(trainable, rest, optimizing, x, y)
        trainable, optimizing = optimizer.stateless_apply(optimizing, grads, trainable)
        new = list(values)
        for group, found in zip(groups, (trainable, rest, optimizing), strict=True):
            for i, value in zip(group, found, strict=True):
                new[i] = value
        return new, unscaled

    return step


def epoch_program(trainer: "Trainer") -> Callable:
    """Return the compiled epoch of a stack of `m` members.

    Called with the stacked values of `trainer.variables`, the images `x` and labels `y`
    and the order `rows`, `(m, n)`, in which each member visits them, it returns the new
    values, the losses `(m, steps)` and whether each member is alive, see
    `Trainer.fit`. `x` and `y` are shared by the members, or stacked too: `own_x` and
    `own_y` say so. The values that it is given are used up.
    """
    step = training_step(trainer)

    def epoch(
        batch_size: int, values: Any, x: Any, y: Any, rows: Any
    ) -> tuple[Any, Any, Any]:
        def on_rows(values: Any, rows: Any) -> tuple[Any, Any]:
            return step(values, x[rows], y[rows])

        whole = len(rows) // batch_size * batch_size
        batches = rows[:whole].reshape(-1, batch_size)
        values, losses = jax.lax.scan(on_rows, values, batches)
        if whole < len(rows):
            values, last = on_rows(values, rows[whole:])
            losses = jnp.append(losses, last)
        with keras.StatelessScope(zip(trainer.variables, values, strict=True)):
            alive = trainer.is_alive(x)
        return values, losses, alive

    def stack(
        values: Any,
        x: Any,
        y: Any,
        rows: Any,
        own_x: bool,
        own_y: bool,
        batch_size: int,
    ) -> tuple[Any, Any, Any]:
        axes = (0, 0 if own_x else None, 0 if own_y else None, 0)
        one = functools.partial(epoch, batch_size)
        return jax.vmap(one, in_axes=axes)(values, x, y, rows)

    static = ("own_x", "own_y", "batch_size")
    return jax.jit(stack, static_argnames=static, donate_argnums=0)


def fit(
    trainer: "Trainer",
    running: Sequence["InTraining"],
    after_epoch: Callable[["InTraining"], None],
) -> None:
    """Do for a stack what `Trainer.fit` says."""
    recipe = running[0].member.recipe
    own_x = recipe.noise_std > 0
    own_y = recipe.distillation is not None
    x = _on_device([one.x for one in running], own_x)
    y = _on_device([one.y for one in running], own_y)
    program = functools.partial(
        trainer.epoch_program,
        own_x=own_x,
        own_y=own_y,
        batch_size=recipe.batch_size,
    )
    columns = zip(*(one.state.values() for one in running), strict=True)
    values: Any = [jnp.stack(column) for column in columns]
    while all(one.is_running for one in running):
        rows = jnp.asarray(np.stack([one.rows(one.epoch) for one in running]), "int32")
        values, _, alive = program(values, x, y, rows)
        for i, one in enumerate(running):
            one.epoch += 1
            one.alive = bool(alive[i])
        host = [np.asarray(value) for value in values]
        for i, one in enumerate(running):
            one.state = dict(zip(one.state, (value[i] for value in host), strict=True))
            if one.alive:
                after_epoch(one)


def default_size(trainer: "Trainer", running: "InTraining") -> int:
    """Return how many members like `running` fit into half of a GPU's memory.

    On a CPU it is one: a second one costs more than its share, as the caches are full.
    A member has its weights with their gradients and the optimizer's moments, the
    activations of a batch with the patches of its convolutions, forward and backward,
    twice in adversarial training, and its own images and labels if it has any. Where
    the memory is not known, it is one, too.
    """
    if not on_gpu():
        return 1
    recipe = running.member.recipe
    passes = 4 if recipe.adversarial else 2
    numbers = 2 * sum(value.size for value in running.state.values())
    for layer in trainer.network.layers:
        size = int(np.prod(layer.output.shape[1:]))
        if isinstance(layer, keras.layers.Conv2D):
            size += int(np.prod(layer.output.shape[1:3] + layer.kernel.shape[:3]))
        numbers += passes * recipe.batch_size * size
    if recipe.noise_std:
        numbers += running.x.size
    if recipe.distillation:
        numbers += running.y.size
    return max(1, int(_SHARE * _memory() / (4 * numbers)))


def _memory() -> int:
    # None where the allocator keeps no statistics.
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 0)


def _on_device(arrays: Sequence[np.ndarray], own: bool) -> Any:
    return jnp.stack(arrays) if own else jnp.asarray(arrays[0])
