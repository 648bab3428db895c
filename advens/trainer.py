"""A compiled network and its training, for one member or several after another."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import keras
import numpy as np
from keras import ops

from advens import models, pipelines
from advens.adversarial_training import Adversarial, AdversarialTraining
from advens.distillation import Distillation, student_model
from advens.gradients import compiled, use_xla
from advens.layers import HalfWordDropout, MatmulConv2D, QuickConv2D, uses_onednn
from advens.logits import logits_model
from advens.recipes import Member

_PROBE_IMAGES: Final = 500
# So many steps of TensorFlow on a CPU are one call: with a call a step, one of Table 1
# takes 13 % more time (docs/performance.md).
_STEPS_A_CALL: Final = 8


class _FusedAdam(keras.optimizers.Adam):
    """Keras's Adam by TensorFlow's one kernel: on a CPU, twelve take a tenth of a step.

    The formula is the same, and so are the variables.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        import tensorflow as tf

        dtype = variable.dtype
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, dtype)
        beta1, beta2, rate, epsilon = (
            tf.cast(value, dtype)
            for value in (self.beta_1, self.beta_2, learning_rate, self.epsilon)
        )
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(beta1, step),
            beta2_power=tf.pow(beta2, step),
            lr=rate,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            grad=tf.cast(gradient, dtype),
        )


def make_optimizer(name: str, learning_rate: float) -> keras.optimizers.Optimizer:
    """Return a Keras optimizer by its name.

    Raises:
        ValueError: if Keras has none of that name.
    """
    config = {"class_name": name, "config": {"learning_rate": learning_rate}}
    try:
        optimizer = keras.optimizers.get(config)
    except ValueError:
        raise ValueError(
            "`optimizer` must be the name of a Keras optimizer, such as 'adam' or "
            f"'sgd'. Received: optimizer={name!r}"
        ) from None
    if type(optimizer) is keras.optimizers.Adam and not use_xla():
        return _FusedAdam(learning_rate, name=optimizer.name)
    return optimizer


@dataclasses.dataclass
class InTraining:
    """A member on its way.

    Attributes:
        member: who.
        x: `(n, h, w, c)` float32, its images, with its noise.
        y: `(n, ...)`, its labels.
        state: its weights, optimizer and dropout seeds, see `Trainer.start`.
        attempt: how often it was started again.
        epoch: how many epochs of this attempt are done.
        alive: False once it has died, see `Trainer.fit`.
    """

    member: Member
    x: np.ndarray
    y: np.ndarray
    state: dict[str, np.ndarray]
    attempt: int = 0
    epoch: int = 0
    alive: bool = True

    @property
    def is_running(self) -> bool:
        """Whether there are epochs left."""
        return self.alive and self.epoch < self.member.recipe.epochs

    def rows(self, epoch: int) -> np.ndarray:
        """Return the rows of `x`, `(n,)`, in the order in which an epoch visits them.

        Args:
            epoch: its number.
        """
        return pipelines.epoch_rows(
            self.member.seed,
            epoch,
            len(self.x),
            bootstrap=self.member.recipe.bootstrap,
        )


class Trainer:
    """A compiled network that serves one member or stack after another.

    On Keras's TensorFlow backend the steps are those of `keras.Model.fit`, several in a
    call; on the JAX backend members are stacked, see `advens.stacked`.

    Args:
        architecture: of the network.
        optimizer: see `Recipe`.
        learning_rate: see `Recipe`.
        precision: see `Recipe`.
        adversarial: see `Recipe`.
        distillation: see `Recipe`.

    Attributes:
        network: the network, which gives probabilities.
        model: what is trained: it shares the network's weights.
        variables: what differs between members: the network's and the optimizer's.
        is_alive: says of images whether any has a logit that is not zero.
        stacks: whether `fit` takes several members.
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
        self.stacks = keras.backend.backend() == "jax"
        layers: dict[str, Any] = {}
        if self.stacks:
            layers["conv"] = MatmulConv2D
        elif not use_xla():
            layers["dropout"] = HalfWordDropout
            if not uses_onednn():
                layers["conv"] = QuickConv2D
        self._build = functools.partial(
            models.build, architecture, dtype=precision, **layers
        )
        self.network = self._build(seed=0)
        # From logits: Keras clips probabilities on some backends.
        loss: keras.losses.Loss
        if distillation:
            options = dataclasses.asdict(distillation)
            self.model = student_model(self.network, **options)
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        else:
            self.model = logits_model(self.network)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if adversarial:
            self.model = AdversarialTraining(
                self.model, **dataclasses.asdict(adversarial), outputs="logits"
            )
        scaled = make_optimizer(optimizer, learning_rate)
        if precision == "mixed_float16":
            # Keras does so itself only where the whole model has that policy.
            scaled = keras.optimizers.LossScaleOptimizer(scaled)
        self.model.compile(optimizer=scaled, loss=loss)
        self.model.optimizer.build(self.model.trainable_variables)
        logits = logits_model(self.network)
        self.is_alive = lambda x: ops.any(
            ops.not_equal(logits(x[:_PROBE_IMAGES], training=False), 0)
        )
        self._is_alive = compiled(self.is_alive, self.network)
        step = compiled(lambda x, y: self.model.train_step((x, y)), self.model)

        def steps(x: Any, y: Any, batch_size: int) -> None:
            for i in range(0, x.shape[0], batch_size):
                step(x[i : i + batch_size], y[i : i + batch_size])

        self._steps, self._steps_at_once = steps, compiled(steps, self.model)
        self.variables = [*self.network.variables, *self.model.optimizer.variables]
        self._initial = self._state()
        if self.stacks:
            from advens import stacked

            self.epoch_program = stacked.epoch_program(self)

    def start(self, seed: int) -> dict[str, np.ndarray]:
        """Return the state of a new member: all that a resumed training needs.

        Args:
            seed: of its weights and dropout masks.
        """
        fresh = map(ops.convert_to_numpy, self._build(seed=seed).variables)
        return {**self._initial, **_named(fresh)}

    def weights(self, state: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return a member's weights, in the order of `Model.get_weights`."""
        weights = {id(variable) for variable in self.network.weights}
        pairs = zip(self.variables, state.values(), strict=True)
        return [value for variable, value in pairs if id(variable) in weights]

    def stack_size(self, one: InTraining) -> int:
        """Return how many members like this one `fit` takes at a time."""
        if not self.stacks:
            return 1
        from advens import stacked

        return stacked.default_size(self, one)

    def fit(
        self,
        running: Sequence[InTraining],
        after_epoch: Callable[[InTraining], None],
    ) -> None:
        """Train members until one of them is done or dead.

        A network dies when all its logits become zero for every image, as they can
        where they are ReLU'd (docs/protocol.md, point 26): no step changes it any more.

        Args:
            running: the members, of one recipe but for the bootstrap and the number of
                epochs; one, if the trainer does not stack. Brought up to date.
            after_epoch: called with each that is alive after an epoch.
        """
        if self.stacks:
            from advens import stacked

            stacked.fit(self, running, after_epoch)
        else:
            (one,) = running
            self._fit(one, after_epoch)

    def _fit(self, one: InTraining, after_epoch: Callable[[InTraining], None]) -> None:
        if not one.is_running:
            return
        recipe = one.member.recipe
        for variable, value in zip(self.variables, one.state.values(), strict=True):
            variable.assign(value)
        order = np.stack([one.rows(e) for e in range(one.epoch, recipe.epochs)])
        num_images = recipe.batch_size * (1 if use_xla() else _STEPS_A_CALL)
        calls = iter(pipelines.batches(one.x, one.y, order, batch_size=num_images))
        while one.is_running:
            for x, y in itertools.islice(calls, -(-len(one.x) // num_images)):
                full = x.shape[0] == num_images
                # What an epoch leaves over is not worth a program of its own.
                steps = self._steps_at_once if full else self._steps
                steps(x, y, recipe.batch_size)
            one.epoch, one.state = one.epoch + 1, self._state()
            one.alive = bool(self._is_alive(one.x[:_PROBE_IMAGES]))
            if one.alive:
                after_epoch(one)

    def _state(self) -> dict[str, np.ndarray]:
        return _named(map(ops.convert_to_numpy, self.variables))


def _named(arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"variable_{i:03d}": np.array(array) for i, array in enumerate(arrays)}
