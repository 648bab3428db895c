"""Attack an ensemble and record, image by image, who still answers right."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Literal

import keras
import numpy as np
from keras import ops

from advens import gradients
from advens.attacks import Adversarial, Attack, craft
from advens.checks import check_choices, check_ensemble, checked_images
from advens.ensemble import Compute, Ensemble
from advens.gradients import Labels, Loss
from advens.outcomes import Outcomes, joined, pack, unpack
from advens.store import Spec, Store

KIND: Final = "outcomes"
_CHECKPOINT_SECONDS: Final = 10

Source = Literal["member", "mean_member", "ensemble"]
# Each attack's images, the labels, how many of them count.
_Batch = tuple[list[Adversarial], Any, int]


@dataclasses.dataclass(frozen=True)
class Threat:
    """Which gradient an attacker follows, as data.

    Attributes:
        gradient: `"member"` (Grad. 1), `"mean_member"` (Grad. 2) or `"ensemble"`; see
            `advens.gradients`.
        index: which member; for `"member"` alone.
        labels: see `gradients.Gradient`.
        loss: see `gradients.Gradient`.
        compute: see `Ensemble.member_logits`. What the attacked images are called is
            always told in float32.
    """

    gradient: Source
    index: int | None = None
    labels: Labels = "true"
    loss: Loss = "exact"
    compute: Compute = "float32"

    def __post_init__(self) -> None:
        choices = {"gradient": Source, "labels": Labels, "loss": Loss}
        check_choices(self, **choices, compute=Compute)
        if (self.index is not None) != (self.gradient == "member"):
            raise ValueError(
                "`index` must be given for gradient='member', and for no other. "
                f"Received: gradient={self.gradient!r}, index={self.index}"
            )

    def of(self, ensemble: Ensemble) -> gradients.Gradient:
        """Return the gradient itself."""
        index = () if self.index is None else (self.index,)
        make = getattr(gradients, f"{self.gradient}_gradient")
        options = {"labels": self.labels, "loss": self.loss, "compute": self.compute}
        return make(ensemble, *index, **options)


def evaluate(
    ensemble: Ensemble,
    x: np.ndarray,
    y: np.ndarray,
    *,
    threat: Threat | None = None,
    attacks: Sequence[Attack] = (),
    batch_size: int = 250,
) -> list[Outcomes]:
    """Attack all images and judge the result; all in float32.

    Args:
        ensemble: who is attacked and judged.
        x: `(n, h, w, c)` float in [0, 1]; without attack, of any range.
        y: `(n,)` or `(n, 1)` int labels.
        threat: the gradient; None for no attack.
        attacks: the attacks that follow it; none without a threat.
        batch_size: images at once. It changes the speed alone.

    Returns:
        The outcomes of each attack, or of the one evaluation without attack.

    Raises:
        ValueError: if images or labels are none that can be judged, or if a member
            returns NaN.
    """
    batches = _crafted(ensemble, x, y, threat, attacks, batch_size)
    parts = list(_judged(ensemble, attacks, batches))
    return [joined(attack_parts) for attack_parts in zip(*parts, strict=True)]


def adversarial_images(
    ensemble: Ensemble,
    x: np.ndarray,
    y: np.ndarray,
    *,
    threat: Threat,
    attacks: Sequence[Attack],
    batch_size: int = 250,
) -> list[Adversarial]:
    """Attack all images and return what `evaluate` would judge, as numpy arrays.

    `evaluate(other, x_adv, y)` tells how they transfer to another ensemble.

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
    batches = _crafted(ensemble, x, y, threat, attacks, batch_size)
    parts = [
        [[ops.convert_to_numpy(a)[:num_images] for a in one] for one in crafted]
        for crafted, _, num_images in batches
    ]
    return [
        Adversarial(*map(np.concatenate, zip(*attack_parts, strict=True)))
        for attack_parts in zip(*parts, strict=True)
    ]


def worst_case(outcomes: Sequence[Outcomes]) -> np.ndarray:
    """Return which images the ensemble still answers right after each of some attacks.

    Its mean is the accuracy under an attacker who takes, image by image, whichever of
    the attacks succeeds: no attack alone tells it. Such an attacker can leave an image
    alone, too: the outcomes without attack belong into the list.

    Args:
        outcomes: of several attacks or gradients, and of none, on the same images.

    Returns:
        `(n,)` bool.
    """
    if not outcomes:
        raise ValueError("`outcomes` must hold those of one attack at least")
    return np.logical_and.reduce([outcome.ensemble for outcome in outcomes])


def stored_outcomes(
    store: Store,
    address: Spec,
    ensemble: Callable[[], Ensemble],
    x: np.ndarray,
    y: np.ndarray,
    *,
    threat: Threat | None = None,
    attacks: Sequence[Attack] = (),
    batch_size: int = 250,
    on_images: Callable[[int], None] = lambda count: None,
) -> list[Outcomes]:
    """Do what `evaluate` does, but once: read from the store what it holds.

    A killed call goes on from at most some seconds before the kill.

    Args:
        store: where the outcomes are read and written.
        address: what determines the ensemble and the images.
        ensemble: called for the ensemble if there is anything to do.
        x: see `evaluate`.
        y: see `evaluate`.
        threat: see `evaluate`.
        attacks: see `evaluate`.
        batch_size: see `evaluate`.
        on_images: called with the number of images whenever some are done.
    """
    spec = {
        **address,
        "threat": threat and dataclasses.asdict(threat),
        "attacks": [dataclasses.asdict(attack) for attack in attacks],
        "backend": keras.backend.backend(),
    }
    if (arrays := store.load(KIND, spec)) is None:
        checkpoint = store.load_checkpoint(KIND, spec)
        done, arrays = checkpoint or (0, {})
        parts = [unpack(arrays)] if done else []
        on_images(done)
        saved = time.monotonic()
        judged: Iterable[list[Outcomes]] = ()
        # Nothing is left to do if the last run was killed between its last two writes.
        if done < len(x) or not done:
            loaded = ensemble()
            rest = _crafted(loaded, x[done:], y[done:], threat, attacks, batch_size)
            judged = _judged(loaded, attacks, rest)
        for batch in judged:
            parts.append(batch)
            count = len(batch[0].ensemble)
            done += count
            on_images(count)
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                parts = [[joined(p) for p in zip(*parts, strict=True)]]
                store.save_checkpoint(KIND, spec, done, pack(parts[0]))
                saved = time.monotonic()
        arrays = pack([joined(p) for p in zip(*parts, strict=True)])
        store.save(KIND, spec, arrays)
    else:
        on_images(len(x))
    return unpack(arrays)


def _judged(
    ensemble: Ensemble, attacks: Sequence[Attack], batches: Iterator[_Batch]
) -> Iterator[list[Outcomes]]:
    """Yield the outcomes of batch after batch, an `Outcomes` per attack."""
    for crafted, y_batch, num_images in batches:
        judge = _compiled(ensemble, "judge", lambda: partial(_judge, ensemble))
        found = []
        for i, (x_adv, zero_gradient) in enumerate(crafted):
            members, votes, unknown = map(ops.convert_to_numpy, judge(x_adv, y_batch))
            if unknown.any():
                raise ValueError(
                    "`ensemble` must return numbers. Received: NaN from "
                    f"members{np.flatnonzero(unknown).tolist()} under "
                    f"{attacks[i].name if attacks else 'no attack'}"
                )
            bits = members, votes, ops.convert_to_numpy(zero_gradient)
            found.append(Outcomes(*(a[..., :num_images] for a in bits)))
        yield found


def _crafted(
    ensemble: Ensemble,
    x: np.ndarray,
    y: np.ndarray,
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
    # Subclassed members tell it when they are called.
    last = (ensemble.num_classes or ensemble(x[:1]).shape[-1]) - 1
    if y.min() < 0 or y.max() > last:
        raise ValueError(
            f"`y` must be labels from 0 to {last}. Received: {y.min()} to {y.max()}"
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1. Received: {batch_size}")
    # Batches of one size, the last one filled up: a graph is compiled for one shape.
    num_batches = -(-len(x) // batch_size)
    batch_size = -(-len(x) // num_batches)
    for start in range(0, len(x), batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), len(x) - 1)
        x_batch = ops.convert_to_tensor(x[rows], "float32")
        y_batch = ops.convert_to_tensor(y[rows], "int32")
        if threat is None:
            crafted = [Adversarial(x_batch, np.zeros(batch_size, bool))]
        else:
            crafted = _crafter(ensemble, threat, tuple(attacks))(x_batch, y_batch)
        yield crafted, y_batch, min(batch_size, len(x) - start)


def _crafter(
    ensemble: Ensemble, threat: Threat, attacks: tuple[Attack, ...]
) -> Callable[[Any, Any], list[Adversarial]]:
    def make() -> Callable:
        gradient = threat.of(ensemble)
        return lambda x, y: craft(gradient, x, y, attacks)

    return _compiled(ensemble, (threat, attacks), make)


def _compiled(ensemble: Ensemble, key: Any, make: Callable[[], Callable]) -> Callable:
    """Compile a function once; it is kept, for new weights too, as its ensemble is."""
    if key not in ensemble.programs:
        ensemble.programs[key] = gradients.compiled(make(), ensemble)
    return ensemble.programs[key]


def _judge(ensemble: Ensemble, x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Return which members are right, whether the vote is, which members say NaN."""
    logits = ensemble.member_logits(x)
    probs = ops.softmax(logits)
    members = ops.argmax(logits, axis=-1)
    votes = ops.argmax(ops.mean(probs, axis=0), axis=-1)
    return (
        ops.equal(ops.cast(members, y.dtype), y),
        ops.equal(ops.cast(votes, y.dtype), y),
        ops.any(ops.isnan(probs), axis=(1, 2)),
    )
