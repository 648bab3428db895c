"""What a member trains on: bootstrap replicates, Gaussian noise, `tf.data` batches.

Everything random here is a pure function of (member seed, size), drawn with numpy, so
that it is the same on every backend and after every restart.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import keras
import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# One stream of random numbers per purpose: drawing one never shifts another.
_BOOTSTRAP: Final = 1
_NOISE: Final = 2
_ORDER: Final = 3
_STUDENT: Final = 4
_ATTEMPT: Final = 5


def member_seeds(seed: int, num_members: int) -> list[int]:
    """Draw one integer seed per member from the run seed.

    The first seeds do not depend on `num_members`: a smaller ensemble is the first
    members of a larger one.
    """
    return np.random.SeedSequence(seed).generate_state(num_members).tolist()


def weights_seed(seed: int, *, student: bool = False, attempt: int = 0) -> int:
    """Return the seed of a member's weights and dropout masks.

    A student has other weights than its teacher, with which it shares all else, and so
    has each attempt.
    """
    if not (student or attempt):
        return seed
    path = [seed, _STUDENT if student else _ATTEMPT, *([attempt] * (attempt > 0))]
    return int(np.random.default_rng(path).integers(2**32))


def bootstrap_indices(seed: int, size: int) -> np.ndarray:
    """Draw `size` of `size` rows with replacement (Section 3 (iii); Breiman 1996).

    Returns:
        `(size,)` int64 row numbers, of which 63.2 % are distinct in the mean.
    """
    return np.random.default_rng([seed, _BOOTSTRAP]).integers(size, size=size)


def gaussian_noise(
    seed: int, shape: tuple[int, ...], *, noise_std: float
) -> np.ndarray:
    """Draw the noise of one member (Section 3 (iv); docs/protocol.md, points 8, 9).

    It is drawn once, and the noisy images are not clipped.

    Returns:
        float32 noise of standard deviation `noise_std`, in units of the [0, 1] range.
    """
    noise = np.random.default_rng([seed, _NOISE]).standard_normal(shape, np.float32)
    noise *= np.float32(noise_std)
    return noise


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the order, `(size,)` int64, in which an epoch visits the rows."""
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(size)


def batches(
    x: np.ndarray,
    y: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    epochs: int,
    first_epoch: int = 0,
    bootstrap: bool = False,
) -> "tf.data.Dataset | Iterator[tuple[np.ndarray, np.ndarray]]":
    """Build the batches of epochs `first_epoch` to `epochs - 1` of one member.

    An epoch has `ceil(n / batch_size)` batches; the last one may be smaller. Each epoch
    depends on its number alone, so a restart at `first_epoch` sees the same batches.

    Args:
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n, ...)` labels.
        seed: the member's seed.
        batch_size: images per step.
        epochs: number of the epoch after the last one.
        first_epoch: number of the first epoch.
        bootstrap: train on a bootstrap replicate instead of the data set itself.

    Returns:
        What `keras.Model.fit` takes: a `tf.data` pipeline with Keras's TensorFlow
        backend, and a generator with any other.
    """
    size = len(x)
    rows = bootstrap_indices(seed, size) if bootstrap else np.arange(size)
    order = np.stack(
        [rows[epoch_order(seed, epoch, size)] for epoch in range(first_epoch, epochs)]
    )
    starts = range(0, size, batch_size)
    if keras.backend.backend() != "tensorflow":
        indices = (row[i : i + batch_size] for row in order for i in starts)
        return ((x[index], y[index]) for index in indices)

    import tensorflow as tf

    # Constants captured by the function below stay in one place, and are not copied
    # into its graph.
    images, labels, order = tf.constant(x), tf.constant(y), tf.constant(order)

    def batch(step: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        start = step % len(starts) * batch_size
        index = order[step // len(starts), start : start + batch_size]
        return tf.gather(images, index), tf.gather(labels, index)

    dataset = tf.data.Dataset.range((epochs - first_epoch) * len(starts)).map(batch)
    return dataset.prefetch(2)
