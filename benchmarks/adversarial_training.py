"""What a step of adversarial training costs, in plain steps of the same network.

Two kinds of `fit`, in turn, in one run; the ratio of their times is taken pair by pair.
The arithmetic: a plain step is a forward and two backward passes (by the weights, by
the inputs), 3 units; an adversarial one has two of these, and a forward and a backward
pass by the inputs for the perturbation: 8/3.
"""

import functools
from typing import Any

import common
import numpy as np
from absl import flags

_NETWORK = flags.DEFINE_enum("network", "table1", ["table1", "table3"], "Network.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of one measurement.", 1)


def main() -> None:
    """Measure and print."""
    import keras
    import trainers

    from advens import models
    from advens.adversarial_training import Adversarial
    from advens.trainer import Trainer

    architecture = getattr(models, _NETWORK.value.upper())
    rng = np.random.default_rng(0)
    num_images = _BATCH_SIZE.value * _STEPS.value
    x = rng.random((num_images, *architecture.input_shape), np.float32)
    y = rng.integers(architecture.num_classes, size=num_images)
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    fit: Any = {"batch_size": _BATCH_SIZE.value, "shuffle": False}

    options = (architecture, "adam", 1e-3, "float32")
    kinds = {"plain": None, "adversarial": Adversarial(eps=0.3)}
    calls = {}
    for kind, adversarial in kinds.items():
        model = Trainer(*options, adversarial, None).model
        calls[kind] = functools.partial(trainers.timed_fit, model, x, y, **fit)
    seconds = common.in_turns(calls)
    milliseconds = {k: v / _STEPS.value * 1000 for k, v in seconds.items()}
    ratios = seconds["adversarial"] / seconds["plain"]
    common.publish(
        f"{_NETWORK.value}, batch {_BATCH_SIZE.value}, float32",
        ["", "lowest", "median", "highest"],
        [
            *([f"{k} step, ms", *common.spread(v)] for k, v in milliseconds.items()),
            ["ratio, pair by pair", *common.spread(ratios)],
        ],
        milliseconds_per_step=milliseconds,
        ratios=ratios,
    )


if __name__ == "__main__":
    common.run(main)
