"""What a step of adversarial training costs, in plain steps of the same network.

Both kinds of `fit` are timed in turns within one run, and the ratio of their times is
taken pair by pair.

Arithmetic alone gives a ratio of 8/3. A plain step takes 3 passes: forward, backward to
the weights and backward to the inputs. An adversarial step takes these twice, and a
forward and a backward pass more for the perturbation.
"""

import functools

import numpy as np
from absl import flags

import common

_NETWORK = flags.DEFINE_enum(
    "network", "table1", ["table1", "table3"], "Which of the paper's networks."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per step.", 1)
_STEPS = flags.DEFINE_integer("steps", 100, "Steps per measurement.", 1)


def main() -> None:
    """Measure and publish."""
    import keras

    import trainers
    from advens.defenses.settings import AdversarialSettings
    from advens.strauss2017 import networks
    from advens.training.recipe import Recipe

    architecture = getattr(networks, _NETWORK.value.upper())
    rng = np.random.default_rng(0)
    num_images = _BATCH_SIZE.value * _STEPS.value
    x = rng.random((num_images, *architecture.input_shape), np.float32)
    y = rng.integers(architecture.num_classes, size=num_images)
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)

    settings = {"plain": None, "adversarial": AdversarialSettings(eps=0.3)}
    calls = {}
    for kind, adversarial in settings.items():
        recipe = Recipe(
            architecture,
            epochs=1,
            batch_size=_BATCH_SIZE.value,
            optimizer="adam",
            learning_rate=1e-3,
            adversarial=adversarial,
        )
        calls[kind] = functools.partial(
            trainers.timed_fit,
            trainers.make_trainer(recipe).model,
            x,
            y,
            batch_size=_BATCH_SIZE.value,
            shuffle=False,
        )
    seconds = common.in_turns(calls)
    milliseconds = {k: v / _STEPS.value * 1000 for k, v in seconds.items()}
    ratios = seconds["adversarial"] / seconds["plain"]
    lines = [[f"{k} step, ms", *common.spread(v)] for k, v in milliseconds.items()]
    common.publish(
        f"{_NETWORK.value}, batch {_BATCH_SIZE.value}, float32",
        ["", "lowest", "median", "highest"],
        [*lines, ["ratio, pair by pair", *common.spread(ratios)]],
        milliseconds_per_step=milliseconds,
        ratios=ratios,
    )


if __name__ == "__main__":
    common.run(main)
