"""How fast advens trains a network, beside Keras's `fit` and PyTorch.

In turns, in one run, each in a process of its own, as its users have it: advens's are
set as its scripts are (`process.use_onednn`, `process.keep_memory`), the others' where
the row says that they are tuned. A measurement is an epoch of `--steps` steps. That of
Keras begins with some hundredths of a second that no longer epoch has, and that of
advens ends with the look at 500 images that says whether the network is alive: take
many steps. The ratio is that of advens in float32 to each, pair by pair. The share is
what part of the speed of a large matrix product, the fastest of the run in the same
library and precision as advens, the arithmetic of the training reaches.
"""

import dataclasses
import functools
import importlib.util

import common
import numpy as np
from absl import flags

_NETWORK = flags.DEFINE_enum("network", "table1", ["table1", "table3"], "Network.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 40, "Steps of one measurement.", 1)
_STACK = flags.DEFINE_integer(
    "stack", 10, "Members at once, on Keras's JAX backend.", 1
)
_BFLOAT16 = flags.DEFINE_bool("bfloat16", True, "Whether bfloat16 is measured, too.")
_MATRIX_SIZE = flags.DEFINE_integer("matrix_size", 2048, "Rows of the matrices.", 1)


def main() -> None:
    """Measure and print."""
    import arithmetic
    import keras
    import trainers

    from advens import models, training

    # With ReLU'd logits, random labels let networks die and start again.
    architecture = dataclasses.replace(
        getattr(models, _NETWORK.value.upper()), logits="linear"
    )
    num_images = _BATCH_SIZE.value * _STEPS.value
    case = trainers.Case(architecture, num_images, _BATCH_SIZE.value)
    advens, fit, torch = trainers.advens_fit, trainers.keras_fit, trainers.torch_fit
    alone, tuned = common.alone, functools.partial(common.alone, tuned=True)

    calls = {
        "advens, float32": tuned(advens, case, "float32"),
        "advens, bfloat16": tuned(advens, case, "bfloat16"),
        "keras fit, float32": alone(fit, case),
    }
    left_out, members = [], {}
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow:
        calls["keras fit, tuned, float32"] = tuned(fit, case)
        calls["keras fit, XLA, float32"] = alone(fit, case, True)
        calls["keras fit, no XLA, float32"] = alone(fit, case, False)
        if (n_jobs := training.default_jobs()) > 1:
            # In one precision: a second one would be compiled anew in every turn.
            processes = f"advens, {n_jobs} processes, float32"
            # Its processes are its own already.
            calls[processes] = trainers.advens_jobs(case, n_jobs)
            members[processes] = n_jobs
        left_out.append("advens, stacked: the backend is not JAX")
    else:
        stacked = "advens, stacked, float32"
        calls[stacked] = tuned(advens, case, "float32", _STACK.value)
        members[stacked] = _STACK.value
        left_out.append("other rows of keras fit: the backend is not TensorFlow")
    if importlib.util.find_spec("torch"):
        calls["PyTorch, float32"] = alone(torch, case, "float32")
        if on_tensorflow:
            calls["PyTorch, tuned, float32"] = tuned(torch, case, "float32")
        calls["PyTorch, bfloat16"] = alone(torch, case, "bfloat16")
    else:
        left_out.append("PyTorch: not installed")
    dtypes = {name: name.split()[-1] for name in calls}
    if not _BFLOAT16.value:
        dtypes = {name: dtype for name, dtype in dtypes.items() if dtype == "float32"}
        calls = {name: calls[name] for name in dtypes}
        left_out.append("bfloat16: --nobfloat16")
    products = {
        dtype: arithmetic.matrix_product(_MATRIX_SIZE.value, dtype)
        for dtype in dict.fromkeys(dtypes.values())
    }

    seconds = common.in_turns({**calls, **products})
    speeds = {name: members.get(name, 1) * num_images / seconds[name] for name in calls}
    ratios = {name: speeds["advens, float32"] / speeds[name] for name in calls}
    flops = arithmetic.step_flops(architecture)
    rates = {dtype: 2 * _MATRIX_SIZE.value**3 / seconds[dtype] for dtype in products}
    shares = {name: speeds[name] * flops / rates[dtypes[name]].max() for name in calls}

    notes = [f"{k} matrix product: {v.max():.3g}/s" for k, v in rates.items()]
    notes += [f"Left out: {name}" for name in left_out]
    common.publish(
        f"{_NETWORK.value}, batch {_BATCH_SIZE.value}, {flops:.3g} operations a sample",
        ["", "samples/s, lowest", "median", "highest"]
        + ["ratio, lowest", "median", "highest", "share, median"],
        [
            [n, *common.spread(speeds[n], 0), *common.spread(ratios[n])]
            + [f"{np.median(shares[n]):.1%}"]
            for n in calls
        ],
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
    print("\n".join(notes))


if __name__ == "__main__":
    common.run(main)
