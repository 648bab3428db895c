"""What attacks in numpy ask an ensemble: losses, gradients, answers."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from keras import ops

from advens import backend
from advens.arrays import Answers, Floats, Images, Ints, Labels, Tensor
from advens.attacks.compiled import CompiledGradient
from advens.attacks.evaluation import Evaluation
from advens.models.ensemble import Ensemble
from advens.models.votes import log_vote

# Smaller batches would not be worth a program of their own.
_SMALLEST_PART: Final = 4


def in_batches(
    function: Callable[..., Any], arrays: tuple[np.ndarray, ...], batch_size: int
) -> list[np.ndarray]:
    """Call a compiled function on any number of images, in batches of three shapes.

    A program is compiled for a shape, and what was broken is not attacked again: the
    number of images changes from call to call. So batches are whole, a quarter or a
    sixteenth of `batch_size`, and only the last one is filled up.

    Args:
        function: takes tensors and returns a tuple of them, one entry per image each.
        arrays: its arguments, each of `n` entries, n >= 1.
        batch_size: images per call.

    Returns:
        What it returned for the images, as numpy arrays.
    """
    parts = []
    for rows, count in _batches(len(arrays[0]), batch_size):
        results = function(*(ops.convert_to_tensor(array[rows]) for array in arrays))
        parts.append([ops.convert_to_numpy(result)[:count] for result in results])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _batches(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the images of each batch, and how many of them count."""
    parts = [-(-batch_size // 4), -(-batch_size // 16)]
    sizes = [batch_size, *(size for size in parts if size >= _SMALLEST_PART)]
    start = 0
    while start < count:
        left = count - start
        # Where three of the next smaller size are enough, they are less work.
        pairs = itertools.pairwise(sizes)
        size = next((size for size, part in pairs if left > 3 * part), sizes[-1])
        yield np.minimum(np.arange(start, start + size), count - 1), min(size, left)
        start += size


@dataclasses.dataclass(frozen=True)
class Followed:
    """A gradient that an attack in numpy follows.

    Attributes:
        gradient: which gradient.
        batch_size: images per call.
    """

    gradient: CompiledGradient
    batch_size: int = 250

    def __call__(
        self, x: Images, y: Labels, targets: Labels | None = None
    ) -> Evaluation:
        """Return losses, gradients and who is right, for any number of images.

        Raises:
            ValueError: if a loss or a gradient is NaN.
        """
        arrays = (x, y) if targets is None else (x, y, targets)
        answers = in_batches(self.gradient.evaluate, arrays, self.batch_size)
        evaluation = Evaluation(*answers)
        flat = evaluation.grads.reshape(len(x), -1)
        is_nan = np.isnan(evaluation.losses) | np.isnan(flat).any(axis=1)
        if is_nan.any():
            members = self.gradient.nan_members(x[is_nan][:1], y[is_nan][:1])
            raise ValueError(
                f"The gradient of members{members} must be numbers. Received: NaN for "
                f"{is_nan.sum()} image(s) under {self.gradient.threat}"
            )
        return evaluation


@dataclasses.dataclass(frozen=True)
class Scores:
    """What an ensemble answers, all that a black-box attack sees.

    Attributes:
        ensemble: the ensemble.
        batch_size: images per call.
    """

    ensemble: Ensemble
    batch_size: int = 250

    def __call__(self, x: Images, y: Labels) -> tuple[Floats, Answers]:
        """Return the lead of class y over the best other class, and who is right.

        Args:
            x: `(n, h, w, c)` float32.
            y: `(n,)` int.

        Returns:
            The lead, `(n,)`, in logarithms of the ensemble's probabilities, and whether
            the ensemble is right, `(n,)`.
        """
        _, scores = answers(self.ensemble, x, self.batch_size)
        own = np.take_along_axis(scores, y[:, None], axis=1)[:, 0]
        others = scores.copy()
        np.put_along_axis(others, y[:, None], -np.inf, axis=1)
        return own - others.max(axis=1), scores.argmax(axis=1) == y


def answers(ensemble: Ensemble, x: Images, batch_size: int) -> tuple[Ints, Floats]:
    """Return what an ensemble and its members answer.

    Args:
        ensemble: an ensemble of `m` members.
        x: `(n, h, w, c)` float32.
        batch_size: images per call.

    Returns:
        The members' classes, `(n, m)`, and the logarithms of the ensemble's
        probabilities, `(n, k)`.

    Raises:
        ValueError: if a member returns NaN.
    """

    def classes_and_log_probs(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = ensemble.member_logits(x)
        is_nan = ops.any(ops.isnan(ops.softmax(logits)), axis=-1)
        classes = ops.argmax(logits, axis=-1)
        return (
            ops.transpose(classes),
            log_vote(logits, ensemble.votes),
            ops.transpose(is_nan),
        )

    program = ensemble.programs.get(
        "answers", lambda: backend.compile(classes_and_log_probs, ensemble)
    )
    classes, log_probs, is_nan = in_batches(program, (x,), batch_size)
    if is_nan.any():
        members = np.flatnonzero(is_nan.any(axis=0)).tolist()
        raise ValueError(
            f"`ensemble` must return numbers. Received: NaN from members{members} for "
            f"{is_nan.any(axis=1).sum()} image(s)"
        )
    return classes, log_probs
