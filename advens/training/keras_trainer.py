"""Training on Keras's TensorFlow backend: the steps of `keras.Model.fit`."""

import itertools
from collections.abc import Callable, Sequence
from typing import Final

import keras

from advens import backend
from advens.arrays import Tensor
from advens.models.fast_layers import HalfWordDropout, QuickConv2D
from advens.training import samples
from advens.training.recipe import Recipe
from advens.training.state import MemberInTraining
from advens.training.trainer import PROBE_IMAGES, Trainer

# Number of steps per call on a CPU. With one step per call, training Table 1 takes 13 %
# more time (docs/performance.md).
_STEPS_PER_CALL: Final = 8


class KerasTrainer(Trainer):
    """Trains one member at a time, on TensorFlow.

    Args:
        recipe: see `Trainer`.
    """

    def __init__(self, recipe: Recipe) -> None:
        on_cpu = not backend.use_xla()
        slow_gradient = on_cpu and not backend.uses_onednn()
        super().__init__(
            recipe,
            conv=QuickConv2D if slow_gradient else keras.layers.Conv2D,
            dropout=HalfWordDropout if on_cpu else keras.layers.Dropout,
        )
        self._steps_per_call = _STEPS_PER_CALL if on_cpu else 1
        self._is_alive = backend.compile(self.is_alive, self.network)
        step = backend.compile(lambda x, y: self.model.train_step((x, y)), self.model)

        def steps(x: Tensor, y: Tensor, batch_size: int) -> None:
            for i in range(0, x.shape[0], batch_size):
                step(x[i : i + batch_size], y[i : i + batch_size])

        self._steps = steps
        self._steps_in_one_call = backend.compile(steps, self.model)

    def default_stack(self, training: MemberInTraining) -> int:
        """Return 1."""
        return 1

    def fit(
        self,
        running: Sequence[MemberInTraining],
        after_epoch: Callable[[MemberInTraining], None],
    ) -> None:
        """Train one member until it is done or dead, see `Trainer.fit`."""
        (training,) = running
        if not training.is_running:
            return
        recipe = training.member.recipe
        for name, variable in self.variables.items():
            variable.assign(training.state[name])
        orders = [training.rows(e) for e in range(training.epoch, recipe.epochs)]
        num_images = recipe.batch_size * self._steps_per_call
        calls = iter(
            samples.batches(training.x, training.y, orders, batch_size=num_images)
        )
        while training.is_running:
            for x, y in itertools.islice(calls, -(-len(training.x) // num_images)):
                # The rest of an epoch is not worth a program of its own.
                whole = x.shape[0] == num_images
                steps = self._steps_in_one_call if whole else self._steps
                steps(x, y, recipe.batch_size)
            training.epoch += 1
            training.state = self._state()
            training.alive = bool(self._is_alive(training.x[:PROBE_IMAGES]))
            if training.alive:
                after_epoch(training)
