"""Attack an ensemble and record, image by image, who still answers right."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

import keras
import numpy as np
from keras import ops

from advens import gradients
from advens.attacks import Adversarial, Attack, craft
from advens.ensemble import Compute, Ensemble
from advens.gradients import Labels, Loss
from advens.store import Spec, Store

KIND: Final = "outcomes"
_CHECKPOINT_SECONDS: Final = 10

Source = Literal["member", "mean_member", "ensemble"]


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
        if self.gradient not in get_args(Source):
            raise ValueError(
                f"`gradient` must be one of {get_args(Source)}. "
                f"Received: gradient={self.gradient!r}"
            )
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


class Outcomes(NamedTuple):
    """What `m` members and their ensemble say of `n` images, attacked or not.

    Attributes:
        members: `(m, n)` bool, whether each member is right.
        ensemble: `(n,)` bool, whether the ensemble is right.
        zero_gradient: `(n,)` bool, see `attacks.Adversarial`; False without attack.
    """

    members: np.ndarray
    ensemble: np.ndarray
    zero_gradient: np.ndarray


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
    """
    parts = list(_batches(ensemble, x, y, threat, attacks, batch_size))
    return [_joined(attack_parts) for attack_parts in zip(*parts, strict=True)]


def worst_case(outcomes: Sequence[Outcomes]) -> np.ndarray:
    """Return which images the ensemble still answers right after each of some attacks.

    Its mean is the accuracy under an attacker who takes, image by image, whichever of
    the attacks succeeds: no attack alone tells it.

    Args:
        outcomes: of several attacks or gradients on the same images.

    Returns:
        `(n,)` bool.
    """
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
        parts = [_unpack(arrays)] if done else []
        on_images(done)
        saved = time.monotonic()
        for batch in _batches(
            ensemble(), x[done:], y[done:], threat, attacks, batch_size
        ):
            parts.append(batch)
            count = len(batch[0].ensemble)
            done += count
            on_images(count)
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                parts = [[_joined(p) for p in zip(*parts, strict=True)]]
                store.save_checkpoint(KIND, spec, done, _pack(parts[0]))
                saved = time.monotonic()
        arrays = _pack([_joined(p) for p in zip(*parts, strict=True)])
        store.save(KIND, spec, arrays)
    else:
        on_images(len(x))
    return _unpack(arrays)


def _batches(
    ensemble: Ensemble,
    x: np.ndarray,
    y: np.ndarray,
    threat: Threat | None,
    attacks: Sequence[Attack],
    batch_size: int,
) -> Iterator[list[Outcomes]]:
    """Yield the outcomes of batch after batch, an `Outcomes` per attack."""
    if (threat is None) != (not attacks):
        raise ValueError(
            "`threat` and `attacks` must be given both or neither. Received: "
            f"threat={threat}, attacks={attacks}"
        )
    x, y = _checked(x, y, ensemble.num_classes, attacked=threat is not None)
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1. Received: {batch_size}")
    # Batches of one size, the last one filled up: a graph is compiled for one shape.
    num_batches = -(-len(x) // batch_size)
    batch_size = -(-len(x) // num_batches)
    judge = _judge(ensemble)
    for start in range(0, len(x), batch_size):
        rows = np.arange(start, start + batch_size)
        num_kept = min(batch_size, len(x) - start)
        rows = np.minimum(rows, len(x) - 1)
        x_batch = ops.convert_to_tensor(x[rows], "float32")
        y_batch = ops.convert_to_tensor(y[rows], "int32")
        if threat is None:
            crafted = [Adversarial(x_batch, np.zeros(batch_size, bool))]
        else:
            crafted = _crafter(ensemble, threat, tuple(attacks))(x_batch, y_batch)
        yield [
            Outcomes(
                *(
                    ops.convert_to_numpy(a)[..., :num_kept]
                    for a in (*judge(x_adv, y_batch), zero_gradient)
                )
            )
            for x_adv, zero_gradient in crafted
        ]


def _checked(
    x: np.ndarray, y: np.ndarray, num_classes: int | None, *, attacked: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels, `(n,)`, of which it is sure that they can be judged."""
    x, y = np.asarray(x), np.asarray(y)
    # Of an array with a NaN, min and max are NaN and no comparison holds.
    # Adversarial images, to be judged, may lie outside of the box.
    largest = np.finfo(np.float32).max
    low, high = (0, 1) if attacked else (-largest, largest)
    if x.dtype.kind != "f" or x.size == 0 or not (x.min() >= low and x.max() <= high):
        span = f" from {x.min()} to {x.max()}" if x.size else ""
        raise ValueError(
            f"`x` must be images as floats{' in [0, 1]' * attacked}, without NaN, one "
            "at least; what else a model expects is for a layer in front of it, as "
            "Rescaling. "
            f"Received: {x.dtype} of shape {x.shape}{span}"
        )
    if y.shape not in {(len(x),), (len(x), 1)} or y.dtype.kind not in "iu":
        raise ValueError(
            "`y` must be one integer label an image, no one-hot vector. "
            f"Received: {y.dtype} of shape {y.shape} for {len(x)} images"
        )
    last = np.inf if num_classes is None else num_classes - 1
    if y.min() < 0 or y.max() > last:
        raise ValueError(
            f"`y` must be labels from 0 to {last}. Received: {y.min()} to {y.max()}"
        )
    return x, y.reshape(-1)


# Kept as long as the ensemble is likely to be attacked again: with new weights, say.
@functools.lru_cache(maxsize=128)
def _crafter(
    ensemble: Ensemble, threat: Threat, attacks: tuple[Attack, ...]
) -> Callable[[Any, Any], list[Adversarial]]:
    gradient = threat.of(ensemble)
    return gradients.compiled(lambda x, y: craft(gradient, x, y, attacks), ensemble)


@functools.lru_cache(maxsize=8)
def _judge(ensemble: Ensemble) -> Callable:
    def judge(x: Any, y: Any) -> tuple[Any, Any]:
        logits = ensemble.member_logits(x)
        votes = ops.argmax(ops.mean(ops.softmax(logits), axis=0), axis=-1)
        members = ops.argmax(logits, axis=-1)
        return ops.equal(ops.cast(members, y.dtype), y), ops.equal(
            ops.cast(votes, y.dtype), y
        )

    return gradients.compiled(judge, ensemble)


def _joined(parts: Sequence[Outcomes]) -> Outcomes:
    return Outcomes(*(np.concatenate(a, axis=-1) for a in zip(*parts, strict=True)))


def _pack(outcomes: Sequence[Outcomes]) -> dict[str, np.ndarray]:
    """Turn outcomes into arrays of one bit an image."""
    arrays = {"num_images": np.array(outcomes[0].ensemble.shape[-1])}
    for i, outcome in enumerate(outcomes):
        for name, bits in outcome._asdict().items():
            arrays[f"{i}_{name}"] = np.packbits(bits, axis=-1)
    return arrays


def _unpack(arrays: dict[str, np.ndarray]) -> list[Outcomes]:
    count = int(arrays["num_images"])
    num_outcomes = (len(arrays) - 1) // len(Outcomes._fields)
    return [
        Outcomes(
            *(
                np.unpackbits(arrays[f"{i}_{name}"], axis=-1, count=count).astype(bool)
                for name in Outcomes._fields
            )
        )
        for i in range(num_outcomes)
    ]
