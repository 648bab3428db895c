"""Keras's optimizers by name; Adam by a faster kernel where there is one."""

import keras

from advens import backend
from advens.arrays import Tensor


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with all its operations in one kernel, for TensorFlow on a CPU.

    Formula and variables are the same. Keras's twelve operations take a tenth of a
    training step there.
    """

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        """Update one variable."""
        from advens.backend import tensorflow_kernels

        index = self._get_variable_index(variable)
        tensorflow_kernels.apply_adam(
            variable,
            self._momentums[index],
            self._velocities[index],
            gradient,
            step=self.iterations + 1,
            learning_rate=learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )


def make_optimizer(
    name: str,
    learning_rate: float,
    *,
    momentum: float | None = None,
    decay: float | None = None,
) -> keras.optimizers.Optimizer:
    """Return a Keras optimizer by its name.

    Args:
        name: Keras's name of it, such as `"adam"`.
        learning_rate: see `Recipe`.
        momentum: see `Recipe`.
        decay: see `Recipe`.

    Raises:
        ValueError: if Keras has none of that name, or it has no momentum.
    """
    rate: float | keras.optimizers.schedules.LearningRateSchedule = learning_rate
    if decay is not None:
        rate = keras.optimizers.schedules.InverseTimeDecay(learning_rate, 1, decay)
    try:
        optimizer = keras.optimizers.get(name)
    except ValueError:
        raise ValueError(
            "`optimizer` must be the name of a Keras optimizer, such as 'adam' or "
            f"'sgd'. Received: optimizer={name!r}"
        ) from None
    options: dict[str, object] = {"learning_rate": rate}
    if momentum is not None:
        if "momentum" not in optimizer.get_config():
            raise ValueError(
                f"`momentum` is not an option of the optimizer {name!r}. "
                f"Received: momentum={momentum}"
            )
        options["momentum"] = momentum
    optimizer_class = type(optimizer)
    if optimizer_class is keras.optimizers.Adam and not backend.use_xla():
        optimizer_class = FusedAdam
    return optimizer_class(name=optimizer.name, **options)
