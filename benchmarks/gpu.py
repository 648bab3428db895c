"""What a GPU does with advens: training and attacks, beside the chip's own speed.

  KERAS_BACKEND=jax python benchmarks/gpu.py --out=gpu.json

The most telling pieces come first, and the record is written after each: a run that is
cut off leaves what it has. A piece that fails or outlasts its limit is noted.

Training is measured for stacks of members in one program, with convolutions as patches
and a product, or as XLA's own, which become grouped ones in a stack. "tfloat32" rounds
the factors of products to ten bits, as JAX does on a GPU unless told otherwise.
"""

import contextlib
import functools
import re
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Final, TypeAlias

from absl import app, flags

import common

if TYPE_CHECKING:
    from advens.models.architecture import Architecture

# What is measured: it returns its numbers, by their names.
Numbers: TypeAlias = dict[str, float]
Piece: TypeAlias = Callable[[], Numbers]

# Keras's name of the precision of layers, and JAX's of that of products.
_DTYPES: Final = {
    "bfloat16": ("bfloat16", "default"),
    "tfloat32": ("float32", "tensorfloat32"),
    "float32": ("float32", "float32"),
}

_NETWORK = flags.DEFINE_enum("network", "table1", ["table1", "table3"], "Which one.")
_TRAIN_BATCH_SIZE = flags.DEFINE_integer("train_batch_size", 64, "Images a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 400, "Steps of training per measurement.", 1)
_STACKS = flags.DEFINE_list("stacks", ["10", "1", "5"], "Members in one program.")
_NUM_MEMBERS = flags.DEFINE_integer("num_members", 10, "Members attacked.", 1)
_BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes", ["1000", "250", "2500"], "Images per call of an attack."
)
_MATRIX_SIZE = flags.DEFINE_integer("matrix_size", 8192, "Rows of the matrices.", 1)
_ONLY = flags.DEFINE_string("only", "", "Pieces whose names this expression matches.")
_LIMIT = flags.DEFINE_integer("limit", 60, "Seconds that a piece may take.", 1)
_MINUTES = flags.DEFINE_float("minutes", 8, "No piece is started after these.", 0)


def main() -> None:
    """Measure piece by piece, and publish."""
    from advens import backend

    if backend.name() != "jax":
        raise app.UsageError("It measures Keras's JAX backend: set KERAS_BACKEND=jax.")
    end = time.monotonic() + 60 * _MINUTES.value
    found: dict[str, Numbers] = {}
    failed: dict[str, str] = {}
    for name, piece in pieces().items():
        if not re.search(_ONLY.value, name):
            continue
        if time.monotonic() > end:
            failed[name] = "not started: the time was over"
            continue
        try:
            with limited(_LIMIT.value):
                numbers = piece()
        except Exception as error:  # XLA raises what it likes
            failed[name] = f"{type(error).__name__}: {error}"[:300]
        else:
            dtype = name.split(", ")[-1]
            if rate := found.get(f"product, {dtype}"):
                numbers["share"] = numbers["flops"] / rate["flops"]
            found[name] = numbers
        print(f"{name}: {found.get(name) or failed[name]}", flush=True)
        common.write(**record(found, failed))
    columns = ["compiling", "steps", "samples", "images", "flops", "share"]
    lines = [
        [name, *(f"{n[c]:,.3g}" if c in n else "" for c in columns)]
        for name, n in found.items()
    ]
    header = ["", "compiling, s", "steps/s", "samples/s", "images/s", "flops/s"]
    title = f"{_NETWORK.value}, {_TRAIN_BATCH_SIZE.value} images a step"
    common.publish(title, [*header, "share"], lines, **record(found, failed))
    for name, reason in failed.items():
        print(f"{name}: {reason}")


def pieces() -> dict[str, Piece]:
    """Return what is measured, by name, in its order."""
    from advens.strauss2017 import networks

    architecture = getattr(networks, _NETWORK.value.upper())
    products: dict[str, Piece] = {
        f"product, {dtype}": functools.partial(product, dtype) for dtype in _DTYPES
    }
    trainings: list[dict[str, Piece]] = [
        {
            f"training, stack of {stack}, {conv}, {dtype}": functools.partial(
                training, architecture, int(stack), conv, dtype
            )
            for dtype in _DTYPES
            for conv in ("patches", "XLA")
        }
        for stack in _STACKS.value
    ]
    attacks: dict[str, Piece] = {
        f"BIM, Grad. 2, batch {size}, {dtype}": functools.partial(
            attack, architecture, int(size), dtype
        )
        for size in _BATCH_SIZES.value
        for dtype in ("float32", "tfloat32")
    }
    ordered = products | trainings[0] | attacks
    for of_stack in trainings[1:]:
        ordered |= of_stack
    return ordered


def product(dtype: str) -> Numbers:
    """Measure a product of two large square matrices."""
    import jax

    import arithmetic

    of_layers, of_products = _DTYPES[dtype]
    with jax.default_matmul_precision(of_products):
        multiply = arithmetic.matrix_product(_MATRIX_SIZE.value, of_layers)
        compiling, [seconds, *_] = timed(multiply)
    return {"compiling": compiling, "flops": 2 * _MATRIX_SIZE.value**3 / seconds}


def training(
    architecture: "Architecture", stack: int, conv: str, dtype: str
) -> Numbers:
    """Measure an epoch of a stack of members on random images."""
    import jax
    import keras

    import arithmetic
    import trainers
    from advens.models.fast_layers import MatmulConv2D
    from advens.training.stacked_trainer import StackedTrainer
    from advens.training.state import MemberInTraining

    of_layers, of_products = _DTYPES[dtype]
    batch_size = _TRAIN_BATCH_SIZE.value
    case = trainers.Case(architecture, batch_size * _STEPS.value, batch_size)
    member, data = case.member(of_layers, 0), case.data()
    kinds = {"patches": MatmulConv2D, "XLA": keras.layers.Conv2D}
    with jax.default_matmul_precision(of_products):
        trainer = StackedTrainer(member.recipe, conv=kinds[conv])
        states = [trainer.start(seed) for seed in range(stack)]

        def fit() -> None:
            running = [MemberInTraining(member, *data, state) for state in states]
            trainer.fit(running, lambda training: None)

        compiling, [seconds, *_] = timed(fit)
    samples = stack * len(data[0]) / seconds
    return {
        "compiling": compiling,
        "steps": _STEPS.value / seconds,
        "samples": samples,
        "flops": samples * arithmetic.step_flops(architecture),
    }


def attack(architecture: "Architecture", batch_size: int, dtype: str) -> Numbers:
    """Measure BIM through Grad. 2 on random images."""
    import jax
    import keras

    import arithmetic
    import trainers
    from advens.attacks.compiled import gradient
    from advens.attacks.fgsm_bim import bim
    from advens.attacks.threat import Threat
    from advens.models import convnet
    from advens.models.ensemble import Ensemble

    num_steps, seeds = 8, range(_NUM_MEMBERS.value)
    x, y = trainers.Case(architecture, batch_size, batch_size).data()
    with jax.default_matmul_precision(_DTYPES[dtype][1]):
        members = [convnet.build(architecture, seed=seed) for seed in seeds]
        followed = gradient(Ensemble(members), Threat("mean_member"))

        def craft() -> None:
            x_adv, _ = bim(
                followed, x, y, eps=0.2, step_size=0.025, num_steps=num_steps
            )
            keras.ops.convert_to_numpy(x_adv)

        compiling, [seconds, *_] = timed(craft)
    passes = num_steps * len(seeds) * batch_size / seconds
    flops = passes * arithmetic.step_flops(architecture) * 2 / 3
    return {"compiling": compiling, "images": batch_size / seconds, "flops": flops}


def timed(call: Callable[[], object]) -> tuple[float, list[float]]:
    """Return the seconds of a first call, and those of the next, the shortest first."""
    seconds = []
    while len(seconds) < 4 and (len(seconds) < 2 or sum(seconds[1:]) < 2):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[0], sorted(seconds[1:])


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise a `TimeoutError` after so many seconds, as soon as Python has its turn."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def record(found: dict[str, Numbers], failed: dict[str, str]) -> dict[str, object]:
    """Return what was measured, and the settings."""
    return {
        "network": _NETWORK.value,
        "train_batch_size": _TRAIN_BATCH_SIZE.value,
        "num_members": _NUM_MEMBERS.value,
        "found": found,
        "failed": failed,
    }


if __name__ == "__main__":
    common.run(main)
