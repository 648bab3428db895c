"""How fast advens trains a network, beside Keras's `fit` and PyTorch.

All contenders are measured in turns within one run, each in a process of its own, as
its users have it. advens gets the settings that its scripts make
(`process.use_onednn`, `process.keep_memory`); the others get them only in the rows
called "tuned".

One measurement is an epoch of `--steps` steps. Keras's epoch begins with some
hundredths of a second of preparation, whatever its length, and advens's ends with a
look at 500 images, which tells whether the network is alive. Take many steps, so that
neither counts.

The ratio is the speed of advens in float32 over that of each contender, pair by pair.
The share compares the arithmetic of the training with a large matrix product: the
fastest one of this run, in the same precision, in the library that advens uses.
"""

import dataclasses
import functools
import importlib.util
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

import common

if TYPE_CHECKING:
    import trainers

_NETWORK = flags.DEFINE_enum(
    "network", "table1", ["table1", "table3"], "Which of the paper's networks."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per step.", 1)
_STEPS = flags.DEFINE_integer("steps", 40, "Steps per measurement.", 1)
_STACK = flags.DEFINE_integer(
    "stack", 10, "Members that train in one program, on Keras's JAX backend.", 1
)
_BFLOAT16 = flags.DEFINE_bool("bfloat16", True, "Whether to measure bfloat16 too.")
_MATRIX_SIZE = flags.DEFINE_integer(
    "matrix_size", 2048, "Rows and columns of the matrices that are multiplied.", 1
)


def main() -> None:
    """Measure and publish."""
    import arithmetic
    import trainers
    from advens.strauss2017 import networks

    # With ReLU'd logits, networks would die on random labels and start again.
    architecture = dataclasses.replace(
        getattr(networks, _NETWORK.value.upper()), logits="linear"
    )
    num_images = _BATCH_SIZE.value * _STEPS.value
    case = trainers.Case(architecture, num_images, _BATCH_SIZE.value)
    calls, num_members, left_out = contenders(case)
    dtypes = {name: name.split()[-1] for name in calls}
    products = {
        dtype: arithmetic.matrix_product(_MATRIX_SIZE.value, dtype)
        for dtype in dict.fromkeys(dtypes.values())
    }

    seconds = common.in_turns({**calls, **products})
    speeds = {
        name: num_members.get(name, 1) * num_images / seconds[name] for name in calls
    }
    ratios = {name: speeds["advens, float32"] / speeds[name] for name in calls}
    flops = arithmetic.step_flops(architecture)
    rates = {dtype: 2 * _MATRIX_SIZE.value**3 / seconds[dtype] for dtype in products}
    shares = {name: speeds[name] * flops / rates[dtypes[name]].max() for name in calls}

    header = ["", "samples/s, lowest", "median", "highest"]
    header += ["ratio, lowest", "median", "highest", "share, median"]
    lines = [
        [
            name,
            *common.spread(speeds[name], 0),
            *common.spread(ratios[name]),
            f"{np.median(shares[name]):.1%}",
        ]
        for name in calls
    ]
    common.publish(
        f"{_NETWORK.value}, batch {_BATCH_SIZE.value}, {flops:.3g} operations per "
        "sample",
        header,
        lines,
        network=_NETWORK.value,
        batch_size=_BATCH_SIZE.value,
        steps=_STEPS.value,
        stack=_STACK.value,
        step_flops=flops,
        samples_per_second=speeds,
        ratios=ratios,
        matrix_product_flops_per_second=rates,
        shares=shares,
        left_out=left_out,
    )
    for dtype, rate in rates.items():
        print(f"{dtype} matrix product: {rate.max():.3g} operations per second")
    for name in left_out:
        print(f"left out: {name}")


def contenders(
    case: "trainers.Case",
) -> tuple[dict[str, common.Call], dict[str, int], list[str]]:
    """Return what trains the network.

    Returns:
        The contenders, by a name that ends in the precision; how many members they
        train at a time, if more than one; and what is left out, and why.
    """
    import keras

    import trainers
    from advens.training.members import default_jobs

    alone = common.in_own_process
    tuned = functools.partial(alone, tuned=True)
    calls = {
        "advens, float32": tuned(trainers.advens_fit, case, "float32"),
        "advens, bfloat16": tuned(trainers.advens_fit, case, "bfloat16"),
        "keras fit, float32": alone(trainers.keras_fit, case),
    }
    num_members = {}
    left_out = []
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow:
        calls["keras fit, tuned, float32"] = tuned(trainers.keras_fit, case)
        calls["keras fit, XLA, float32"] = alone(trainers.keras_fit, case, True)
        calls["keras fit, no XLA, float32"] = alone(trainers.keras_fit, case, False)
        n_jobs = default_jobs()
        if n_jobs > 1:
            # It has processes of its own already. Each keeps one compiled trainer, and
            # would compile two precisions anew in every turn: float32 alone.
            name = f"advens, {n_jobs} processes, float32"
            calls[name] = trainers.advens_jobs(case, n_jobs)
            num_members[name] = n_jobs
        left_out.append("advens, stacked: the backend is not JAX")
    else:
        name = "advens, stacked, float32"
        calls[name] = tuned(trainers.advens_fit, case, "float32", _STACK.value)
        num_members[name] = _STACK.value
        left_out.append("other rows of keras fit: the backend is not TensorFlow")
    if importlib.util.find_spec("torch"):
        calls["PyTorch, float32"] = alone(trainers.torch_fit, case, "float32")
        if on_tensorflow:
            calls["PyTorch, tuned, float32"] = tuned(
                trainers.torch_fit, case, "float32"
            )
        calls["PyTorch, bfloat16"] = alone(trainers.torch_fit, case, "bfloat16")
    else:
        left_out.append("PyTorch: not installed")
    if not _BFLOAT16.value:
        calls = {name: c for name, c in calls.items() if not name.endswith("bfloat16")}
        left_out.append("bfloat16: --nobfloat16")
    return calls, num_members, left_out


if __name__ == "__main__":
    common.run(main)
