"""What a step of adversarial training costs, in plain steps of the same network.

Two kinds of `fit`, in turn, in one run; the ratio of their times is taken pair by pair.
The arithmetic: a plain step is a forward and two backward passes (by the weights, by
the inputs), 3 units; an adversarial one has two of these, and a forward and a backward
pass by the inputs for the perturbation: 8/3.
"""

import json
import time
from pathlib import Path

import numpy as np
from absl import app, flags

_NETWORK = flags.DEFINE_enum("network", "table1", ["table1", "table3"], "Network.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of one measurement.", 1)
_PAIRS = flags.DEFINE_integer("pairs", 5, "Pairs of measurements.", 1)
_OUT = flags.DEFINE_string("out", None, "JSON file to write.")


def main(_: list[str]) -> None:
    """Measure and print."""
    import keras
    from rich.console import Console
    from rich.table import Table

    from advens import models
    from advens.defenses import Adversarial
    from advens.files import atomic
    from advens.manifest import manifest
    from advens.trainer import Trainer

    architecture = getattr(models, _NETWORK.value.upper())
    rng = np.random.default_rng(0)
    num_images = _BATCH_SIZE.value * _STEPS.value
    x = rng.random((num_images, *architecture.input_shape), np.float32)
    y = rng.integers(architecture.num_classes, size=num_images)
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)

    def fit(adversarial: Adversarial | None) -> float:
        start = time.perf_counter()
        networks[adversarial].model.fit(
            x, y, batch_size=_BATCH_SIZE.value, shuffle=False, verbose=0
        )
        return (time.perf_counter() - start) / _STEPS.value

    kinds = (None, Adversarial(eps=0.3))
    common = (architecture, "adam", 1e-3, "float32")
    networks = {kind: Trainer(*common, kind, None) for kind in kinds}
    for kind in kinds:  # compile
        fit(kind)
    seconds = np.array([[fit(kind) for kind in kinds] for _ in range(_PAIRS.value)])
    ratios = seconds[:, 1] / seconds[:, 0]

    table = Table(title=f"{_NETWORK.value}, batch {_BATCH_SIZE.value}, float32")
    for column in ("", "lowest", "median", "highest"):
        table.add_column(column)
    milliseconds = seconds * 1000
    for name, values in (
        ("plain step, ms", milliseconds[:, 0]),
        ("adversarial step, ms", milliseconds[:, 1]),
        ("ratio, pair by pair", ratios),
    ):
        table.add_row(name, *(f"{np.quantile(values, q):.2f}" for q in (0, 0.5, 1)))
    Console().print(table)
    if _OUT.value:
        record = manifest(seconds_per_step=seconds.tolist(), ratios=ratios.tolist())
        with atomic(Path(_OUT.value)) as handle:
            handle.write((json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    app.run(main)
