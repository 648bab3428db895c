"""Attack an ensemble and record, image by image, which answers are still right."""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from keras import ops

from advens import backend
from advens.arrays import Images, Labels, Tensor
from advens.attacks.compiled import gradient
from advens.attacks.fgsm_bim import AdversarialExamples, craft
from advens.attacks.threat import Attack, Threat
from advens.checks import check_count, check_labels, checked_images
from advens.evaluation.outcomes import Outcomes, join_outcomes
from advens.models.ensemble import Ensemble, check_ensemble, check_images
from advens.models.votes import vote

# The examples of each attack, the labels, and how many of the images count.
_Batch = tuple[list[AdversarialExamples], Tensor, int]


def evaluate(
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    *,
    threat: Threat | None = None,
    attacks: Sequence[Attack] = (),
    batch_size: int = 250,
) -> list[Outcomes]:
    """Attack all images and judge the result.

    Args:
        ensemble: the ensemble that is attacked and judged.
        x: `(n, h, w, c)` float in [0, 1]; without attack, of any range.
        y: `(n,)` or `(n, 1)` int labels.
        threat: the gradient that the attacks follow; None for no attack.
        attacks: the attacks; none without a threat.
        batch_size: images per call. It only changes the speed.

    Returns:
        The outcomes of each attack; without attack, a list of one.

    Raises:
        ValueError: if images or labels cannot be judged, or if a member or its
            gradient returns NaN.
    """
    batches = evaluate_batches(
        ensemble, x, y, threat=threat, attacks=attacks, batch_size=batch_size
    )
    return [join_outcomes(parts) for parts in zip(*batches, strict=True)]


def evaluate_batches(
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    *,
    threat: Threat | None = None,
    attacks: Sequence[Attack] = (),
    batch_size: int = 250,
) -> Iterator[list[Outcomes]]:
    """Do what `evaluate` does, batch after batch: yield the outcomes of each attack."""

    def make_judge() -> Callable:
        return backend.compile(functools.partial(_judge, ensemble), ensemble)

    batches = _attacked(ensemble, x, y, threat, attacks, batch_size)
    for examples, y_batch, num_images in batches:
        judge = ensemble.programs.get("judge", make_judge)
        outcomes = []
        for i, (x_adv, zero_gradient) in enumerate(examples):
            members, votes, is_nan = map(ops.convert_to_numpy, judge(x_adv, y_batch))
            if is_nan.any():
                attack = attacks[i].name if attacks else "no attack"
                raise ValueError(
                    "`ensemble` must return numbers. Received: NaN from "
                    f"members{np.flatnonzero(is_nan).tolist()} under {attack}"
                )
            answers = members, votes, ops.convert_to_numpy(zero_gradient)
            outcomes.append(Outcomes(*(array[..., :num_images] for array in answers)))
        yield outcomes


def adversarial_images(
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    *,
    threat: Threat,
    attacks: Sequence[Attack],
    batch_size: int = 250,
) -> list[AdversarialExamples]:
    """Attack all images and return what `evaluate` would judge, as numpy arrays.

    `evaluate(other_ensemble, x_adv, y)` tells how they transfer to another ensemble.

    Args:
        ensemble: see `evaluate`.
        x: see `evaluate`.
        y: see `evaluate`.
        threat: see `evaluate`.
        attacks: see `evaluate`.
        batch_size: see `evaluate`.

    Returns:
        The adversarial images of each attack.
    """
    batches = _attacked(ensemble, x, y, threat, attacks, batch_size)
    parts = [
        [
            [ops.convert_to_numpy(array)[:num_images] for array in of_attack]
            for of_attack in examples
        ]
        for examples, _, num_images in batches
    ]
    return [
        AdversarialExamples(*map(np.concatenate, zip(*of_attack, strict=True)))
        for of_attack in zip(*parts, strict=True)
    ]


def _attacked(
    ensemble: Ensemble,
    x: Images,
    y: Labels,
    threat: Threat | None,
    attacks: Sequence[Attack],
    batch_size: int,
) -> Iterator[_Batch]:
    """Attack batch after batch."""
    check_ensemble(ensemble)
    if (threat is None) != (not attacks):
        raise ValueError(
            "`threat` and `attacks` must be given both or neither. Received: "
            f"threat={threat}, attacks={attacks}"
        )
    x, y = checked_images(x, y, attacked=threat is not None)
    check_images(ensemble, x)
    # Subclassed members show their number of classes when they are called.
    check_labels(y, ensemble.num_classes or ensemble(x[:1]).shape[-1])
    check_count("batch_size", batch_size)
    # All batches have one size, and the last one is filled up: a program is compiled
    # for one shape.
    num_batches = -(-len(x) // batch_size)
    batch_size = -(-len(x) // num_batches)
    for start in range(0, len(x), batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), len(x) - 1)
        x_batch = ops.convert_to_tensor(x[rows], "float32")
        y_batch = ops.convert_to_tensor(y[rows], "int32")
        if threat is None:
            examples = [AdversarialExamples(x_batch, np.zeros(batch_size, bool))]
        else:
            followed = gradient(ensemble, threat)
            examples = craft(followed, x_batch, y_batch, attacks)
        yield examples, y_batch, min(batch_size, len(x) - start)


def _judge(ensemble: Ensemble, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which members are right, whether the vote is, which members say NaN."""
    logits = ensemble.member_logits(x)
    members = ops.argmax(logits, axis=-1)
    votes = ops.argmax(vote(logits, ensemble.votes), axis=-1)
    return (
        ops.equal(ops.cast(members, y.dtype), y),
        ops.equal(ops.cast(votes, y.dtype), y),
        ops.any(ops.isnan(ops.softmax(logits)), axis=(1, 2)),
    )
