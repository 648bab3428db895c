"""How fast advens trains a network, beside Keras's `fit` and PyTorch.

All in turns, in one run; a measurement is an epoch of `--steps` steps. That of Keras
begins with some hundredths of a second that no longer epoch has, and that of advens
ends with the look at 500 images that says whether the network is alive: take many
steps. The ratio is that of advens in float32 to each, pair by pair. The share is what
part of the speed of a large matrix product, in the same turn, library and precision as
advens, the arithmetic of the training reaches.
"""

import dataclasses
import functools
import importlib.util
import tempfile
from collections.abc import Callable
from typing import Any

import common
import joblib
import numpy as np
from absl import flags

_NETWORK = flags.DEFINE_enum("network", "table1", ["table1", "table3"], "Network.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 40, "Steps of one measurement.", 1)
_STACK = flags.DEFINE_integer(
    "stack", 10, "Members at once, on Keras's JAX backend.", 1
)
_MATRIX_SIZE = flags.DEFINE_integer("matrix_size", 2048, "Rows of the matrices.", 1)


def main() -> None:
    """Measure and print."""
    import arithmetic
    import keras

    from advens import models

    # With ReLU'd logits, random labels let networks die and start again.
    architecture = dataclasses.replace(
        getattr(models, _NETWORK.value.upper()), logits="linear"
    )
    rng = np.random.default_rng(0)
    num_images = _BATCH_SIZE.value * _STEPS.value
    x = rng.random((num_images, *architecture.input_shape), np.float32)
    y = rng.integers(architecture.num_classes, size=num_images)

    calls = {
        "advens, float32": advens_fit(architecture, x, y, "float32"),
        "advens, bfloat16": advens_fit(architecture, x, y, "bfloat16"),
        "keras fit, float32": keras_fit(architecture, x, y, "auto"),
    }
    left_out = []
    cores, members = joblib.cpu_count(), {}
    if keras.backend.backend() == "tensorflow":
        calls["keras fit, no XLA, float32"] = keras_fit(architecture, x, y, False)
        calls["keras fit, XLA, float32"] = keras_fit(architecture, x, y, True)
        # In one precision: a second one would be compiled anew in every turn.
        processes = f"advens, {cores} processes, float32"
        calls[processes] = advens_jobs(architecture, x, y, cores)
        members[processes] = cores
        left_out.append("advens, stacked: the backend is not JAX")
    else:
        members["advens, stacked, float32"] = _STACK.value
        stacked = advens_fit(architecture, x, y, "float32", _STACK.value)
        calls["advens, stacked, float32"] = stacked
        left_out.append("keras fit, XLA or not: the backend is not TensorFlow")
    if importlib.util.find_spec("torch"):
        calls["PyTorch, float32"] = torch_fit(architecture, x, y, "float32")
        calls["PyTorch, bfloat16"] = torch_fit(architecture, x, y, "bfloat16")
    else:
        left_out.append("PyTorch: not installed")
    dtypes = {name: name.split()[-1] for name in calls}
    products = {
        dtype: arithmetic.matrix_product(_MATRIX_SIZE.value, dtype)
        for dtype in dict.fromkeys(dtypes.values())
    }

    seconds = common.in_turns({**calls, **products})
    speeds = {name: members.get(name, 1) * num_images / seconds[name] for name in calls}
    ratios = {name: speeds["advens, float32"] / speeds[name] for name in calls}
    flops = arithmetic.step_flops(architecture)
    rates = {dtype: 2 * _MATRIX_SIZE.value**3 / seconds[dtype] for dtype in products}
    shares = {name: speeds[name] * flops / rates[dtypes[name]] for name in calls}

    notes = [f"{k} matrix product: {np.median(v):.3g}/s" for k, v in rates.items()]
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


def advens_fit(
    architecture: Any, x: np.ndarray, y: np.ndarray, dtype: str, stack: int = 1
) -> Callable[[], Any]:
    """Return an epoch of advens's training, of as many members at once as `stack`."""
    from advens.recipes import Member
    from advens.trainer import InTraining, Trainer

    recipe = _recipe(architecture, dtype)
    member = Member(recipe, seed=0, train_checksum="")
    trainer = Trainer(architecture, "adam", 1e-3, recipe.precision, None, None)
    states = [trainer.start(seed) for seed in range(stack)]

    def fit() -> None:
        running = [InTraining(member, x, y, state) for state in states]
        trainer.fit(running, lambda one: None)

    return fit


def advens_jobs(
    architecture: Any, x: np.ndarray, y: np.ndarray, n_jobs: int
) -> Callable[[], Any]:
    """Return an epoch of as many members as processes, `--n_jobs` of the scripts."""
    from advens.datasets import Dataset
    from advens.recipes import Member
    from advens.store import Store
    from advens.training import fit_members

    names = tuple(map(str, range(architecture.num_classes)))
    dataset = Dataset("random", x, y, x[:1], y[:1], names)
    recipe = _recipe(architecture, "float32")
    members = [Member(recipe, seed, "") for seed in range(n_jobs)]

    def fit() -> None:
        with tempfile.TemporaryDirectory() as root:
            fit_members(members, dataset, Store(root), n_jobs=n_jobs)

    return fit


def _recipe(architecture: Any, dtype: str) -> Any:
    from advens.recipes import Recipe

    precision: Any = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[dtype]
    return Recipe(architecture, 1, _BATCH_SIZE.value, "adam", 1e-3, precision)


def keras_fit(
    architecture: Any, x: np.ndarray, y: np.ndarray, jit_compile: bool | str
) -> Callable[[], Any]:
    """Return an epoch of `fit` of the same network, all else as Keras has it."""
    from advens import models

    model = models.build(architecture, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return functools.partial(model.fit, x, y, batch_size=_BATCH_SIZE.value, verbose=0)


def torch_fit(
    architecture: Any, x: np.ndarray, y: np.ndarray, dtype: str
) -> Callable[[], Any]:
    """Return an epoch of the same network in PyTorch, from the same weights."""
    import torch
    import torch_networks

    from advens import models

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torch_networks.build(architecture)
    torch_networks.copy_weights(models.build(architecture, seed=0), network)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    # A view: the images lie in memory as `channels_last` wants them.
    images = torch.from_numpy(x).movedim(-1, 1).to(device)
    labels = torch.from_numpy(y).to(device)

    def fit() -> float:
        for index in torch.randperm(len(x), device=device).split(_BATCH_SIZE.value):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = network(images[index])
                loss = torch.nn.functional.cross_entropy(logits, labels[index])
            loss.backward()
            optimizer.step()
        return loss.item()

    return fit


if __name__ == "__main__":
    common.run(main)
