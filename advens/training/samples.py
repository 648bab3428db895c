"""What a member trains on: bootstrap replicates, Gaussian noise, `tf.data` batches.

Everything random here is a pure function of the member's seed and of sizes, drawn with
numpy, so that it is the same on every backend and after every restart.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from advens.arrays import Floats, Images, Ints

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

    A student starts from other weights than its teacher, with which it shares
    everything else; and so does each new attempt.
    """
    if not (student or attempt):
        return seed
    path = [seed, _STUDENT if student else _ATTEMPT]
    if attempt:
        path.append(attempt)
    return int(np.random.default_rng(path).integers(2**32))


def bootstrap_indices(seed: int, size: int) -> Ints:
    """Draw `size` rows out of `size` with replacement (Section 3 (iii); Breiman 1996).

    Returns:
        `(size,)` int64 row numbers, of which 63.2 % are distinct on average.
    """
    return np.random.default_rng([seed, _BOOTSTRAP]).integers(size, size=size)


def gaussian_noise(seed: int, shape: tuple[int, ...], *, noise_std: float) -> Floats:
    """Draw the noise of one member (Section 3 (iv); docs/protocol.md, points 8, 9).

    It is drawn once, and the noisy images are not clipped.

    Returns:
        float32 noise of standard deviation `noise_std`, in units of the [0, 1] range.
    """
    noise = np.random.default_rng([seed, _NOISE]).standard_normal(shape, np.float32)
    noise *= np.float32(noise_std)
    return noise


def epoch_rows(seed: int, epoch: int, size: int, *, bootstrap: bool = False) -> Ints:
    """Return the rows, `(size,)` int64, in the order in which an epoch visits them.

    It depends on the seed and the epoch alone, so a restart sees the same batches.

    Args:
        seed: the member's seed.
        epoch: number of the epoch.
        size: rows of the data set.
        bootstrap: visit a bootstrap replicate instead of the data set itself.
    """
    order = np.random.default_rng([seed, _ORDER, epoch]).permutation(size)
    return bootstrap_indices(seed, size)[order] if bootstrap else order


def batches(
    x: Images, y: np.ndarray, orders: Sequence[Ints], *, batch_size: int
) -> "tf.data.Dataset":
    """Build the `tf.data` pipeline of several epochs of one member.

    An epoch has `ceil(n / batch_size)` batches; the last one may be smaller.

    Args:
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n, ...)` labels.
        orders: the rows of each epoch, `(n,)`, see `epoch_rows`.
        batch_size: images in a batch: one step of training, or several.
    """
    import tensorflow as tf

    def generate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in orders:
            for start in range(0, len(x), batch_size):
                index = rows[start : start + batch_size]
                yield x[index], y[index]

    # Gathered here, from arrays that processes may share. Given tensors, TensorFlow
    # would keep a copy in each process.
    signature = tuple(tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in (x, y))
    options = tf.data.Options()
    # Whoever is done with the pipeline would wait up to a second for the tuning thread.
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    num_batches = len(orders) * -(-len(x) // batch_size)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
    return dataset.prefetch(2).with_options(options)
