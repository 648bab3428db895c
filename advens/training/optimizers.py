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
    if type(optimizer) is keras.optimizers.Adam and not backend.use_xla():
        return FusedAdam(learning_rate, name=optimizer.name)
    return optimizer
