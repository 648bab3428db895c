"""What advens costs with more members, images, steps, larger batches and processes.

The attack is BIM through Grad. 2 on untrained networks of Table 1. While one size
varies, the others stay at their middle values; a batch size is that of a single batch.
Training has few members and few images of the digits, and `n_jobs` processes.

Relative are the seconds a unit to those of the first size, pair by pair: 1 is linear.
Through the medians goes the line of the least squares, slope * n + constant. A unit, n,
is a member, image or step; of training, it is the work, 1 / n_jobs, of a process.
"""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import common
import numpy as np
from absl import flags

_SIZES: Final = {
    "num_members": "1,2,5,10,20",
    "num_images": "250,500,1000,2000",
    "num_steps": "1,2,4,8,16",
    "batch_size": "50,100,250,500,1000",
    "n_jobs": "1,2",
}
_TRAIN_MEMBERS = flags.DEFINE_integer("train_members", 4, "Members to train.", 2)
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", 1000, "Images of the digits.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 2, "Epochs of a member.", 1)


def _are_sizes(texts: Sequence[str]) -> bool:
    if not all(text.isdecimal() for text in texts):
        return False
    values = [int(text) for text in texts]
    return len(values) >= 2 and values == sorted(set(values) - {0})


for _name, _default in _SIZES.items():
    flags.DEFINE_list(_name, _default, f"Values of `{_name}`.")
    flags.register_validator(
        _name, _are_sizes, "must be two or more whole numbers >= 1, each above the last"
    )


def main() -> None:
    """Measure and print."""
    sizes = {name: [*map(int, getattr(common.FLAGS, name))] for name in _SIZES}
    middle = {k: v[(len(v) - 1) // 2] for k, v in sizes.items() if k != "n_jobs"}
    attack, train = prepare_attack(sizes), prepare_training()

    def call(name: str, value: int) -> Callable[[], None]:
        if name == "n_jobs":
            return functools.partial(train, value)
        one_batch = {"num_images": value} if name == "batch_size" else {}
        return functools.partial(attack, {**middle, **one_batch, name: value})

    rows, sweeps = [], {}
    for name, values in sizes.items():
        seconds = common.in_turns({f"{name}={v}": call(name, v) for v in values})
        units = 1 / np.array(values) if name == "n_jobs" else np.array(values)
        found = growth(units, np.stack([*seconds.values()]))
        for i, (label, of_size) in enumerate(seconds.items()):
            relative = common.spread(found["relative"][i])
            rows.append([label, *common.spread(of_size, 3), *relative])
        line = "  {slope:.3g} * n {constant:+.3g}".format_map(found)
        rows.append([line, *[""] * 6])
        sweeps[name] = {"values": values, **found}
    common.publish(
        ", ".join(f"{name}={value}" for name, value in middle.items()),
        ["", "seconds, lowest", "median", "highest"]
        + ["relative, lowest", "median", "highest"],
        rows,
        middle=middle,
        train_members=_TRAIN_MEMBERS.value,
        train_images=_TRAIN_IMAGES.value,
        epochs=_EPOCHS.value,
        **sweeps,
    )


def prepare_attack(sizes: Mapping[str, Sequence[int]]) -> Callable[[Mapping], None]:
    """Return a function of sizes that attacks an ensemble."""
    from advens import models, paper
    from advens.attacks import Attack
    from advens.ensemble import Ensemble
    from advens.evaluation import Threat, evaluate

    seeds = range(max(sizes["num_members"]))
    networks = [models.build(models.TABLE1, seed=seed) for seed in seeds]
    ensembles = {n: Ensemble(networks[:n]) for n in sizes["num_members"]}
    rng = np.random.default_rng(0)
    num_images = max(*sizes["num_images"], *sizes["batch_size"])
    x = rng.random((num_images, *models.TABLE1.input_shape), np.float32)
    y = rng.integers(models.TABLE1.num_classes, size=num_images)

    def attack(size: Mapping[str, int]) -> None:
        budget: Any = {**paper.ATTACKS["mnist"]["BIM"], "num_steps": size["num_steps"]}
        evaluate(
            ensembles[size["num_members"]],
            x[: size["num_images"]],
            y[: size["num_images"]],
            threat=Threat("mean_member"),
            attacks=[Attack("BIM", **budget)],
            batch_size=size["batch_size"],
        )

    return attack


def prepare_training() -> Callable[[int], None]:
    """Return a function of `n_jobs` that trains members into a store of its own."""
    from advens import datasets, pipelines, recipes, training
    from advens.store import Store

    dataset = datasets.load("digits").subset(train_images=_TRAIN_IMAGES.value)
    settings = recipes.Settings("digits", epochs=_EPOCHS.value)
    recipe = recipes.recipe("rand_ini", settings, 0)
    members = [
        recipes.Member(recipe, seed, dataset.checksums["train"])
        for seed in pipelines.member_seeds(0, _TRAIN_MEMBERS.value)
    ]

    def train(n_jobs: int) -> None:
        with tempfile.TemporaryDirectory() as root:
            training.fit_members(members, dataset, Store(root), n_jobs=n_jobs)

    return train


def growth(units: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
    """Return how seconds, `(sizes, rounds)`, grow with units, `(sizes,)`."""
    a_unit = seconds / units[:, np.newaxis]
    slope, constant = np.polyfit(units, np.median(seconds, axis=1), 1)
    return {
        "seconds": seconds,
        "relative": a_unit / a_unit[0],
        "slope": slope,
        "constant": constant,
    }


if __name__ == "__main__":
    common.run(main)
