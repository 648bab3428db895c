"""What a member trains on: bootstrap replicates, Gaussian noise, `tf.data` batches.

Everything random here is a pure function of (member seed, size), drawn with numpy, so
that it is the same on every backend and after every restart.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

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


def epoch_rows(
    seed: int, epoch: int, size: int, *, bootstrap: bool = False
) -> np.ndarray:
    """Return the rows, `(size,)` int64, in the order in which an epoch visits them.

    It depends on the epoch's number alone, so a restart sees the same batches.

    Args:
        seed: the member's seed.
        epoch: number of the epoch.
        size: rows of the data set.
        bootstrap: visit a bootstrap replicate instead of the data set itself.
    """
    order = np.random.default_rng([seed, _ORDER, epoch]).permutation(size)
    return bootstrap_indices(seed, size)[order] if bootstrap else order


def batches(
    x: np.ndarray, y: np.ndarray, order: np.ndarray, *, batch_size: int
) -> "tf.data.Dataset":
    """Build the `tf.data` pipeline of some epochs of one member.

    An epoch has `ceil(n / batch_size)` batches; the last one may be smaller.

    Args:
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n, ...)` labels.
        order: `(epochs, n)`, the rows of each epoch, see `epoch_rows`.
        batch_size: images of a batch: one step of training, or several.
    """
    import tensorflow as tf

    def generate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in order:
            for start in range(0, len(x), batch_size):
                index = rows[start : start + batch_size]
                yield x[index], y[index]

    # Gathered here, from arrays that processes may share; as tensors, TensorFlow would
    # keep a copy in each.
    signature = tuple(tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in (x, y))
    options = tf.data.Options()
    # The thread that tunes lets whoever is done with the pipeline wait for a second.
    options.autotune.enabled = False
    found = tf.data.Dataset.from_generator(generate, output_signature=signature)
    size = len(order) * -(-len(x) // batch_size)
    found = found.apply(tf.data.experimental.assert_cardinality(size))
    return found.prefetch(2).with_options(options)
