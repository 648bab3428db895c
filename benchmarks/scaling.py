"""What advens costs with more members, images, steps, larger batches and processes.

The attack is BIM through Grad. 2 on untrained networks of Table 1. While one size
varies, the others stay at their middle values. Where the batch size varies, all images
are one batch. The training is of few members on few images of the digits, in `n_jobs`
processes.

Each time is divided by its units: the members, images or steps, or for training the
part 1 / n_jobs of the work that one process has. The relative time is that quotient
over the quotient of the first size, pair by pair; 1 means that the cost is linear. The
line `slope * n + constant` is fitted to the medians by least squares, with n the units.
"""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypedDict

import numpy as np
from absl import flags

import common
from advens.arrays import Floats

_SIZES: Final = {
    "num_members": "1,2,5,10,20",
    "num_images": "250,500,1000,2000",
    "num_steps": "1,2,4,8,16",
    "batch_size": "50,100,250,500,1000",
    "n_jobs": "1,2",
}
_TRAIN_MEMBERS = flags.DEFINE_integer("train_members", 4, "Members to train.", 2)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 1000, "Images of the digits to train on.", 1
)
_EPOCHS = flags.DEFINE_integer("epochs", 2, "Epochs of training.", 1)


class Growth(TypedDict):
    """How a time grows with the number of units.

    Attributes:
        seconds: `(sizes, rounds)`.
        relative: `(sizes, rounds)`, the seconds per unit over those of the first size.
        slope: seconds per unit.
        constant: seconds.
    """

    seconds: Floats
    relative: Floats
    slope: float
    constant: float


def _are_sizes(texts: Sequence[str]) -> bool:
    if not all(text.isdecimal() for text in texts):
        return False
    values = [int(text) for text in texts]
    return len(values) >= 2 and values == sorted(set(values) - {0})


for _name, _default in _SIZES.items():
    flags.DEFINE_list(_name, _default, f"Values of `{_name}`.")
    flags.register_validator(
        _name,
        _are_sizes,
        "must be two or more whole numbers >= 1, each above the one before",
    )


def main() -> None:
    """Measure and publish."""
    sizes = {name: [int(v) for v in getattr(common.FLAGS, name)] for name in _SIZES}
    middle = {k: v[(len(v) - 1) // 2] for k, v in sizes.items() if k != "n_jobs"}
    attack, train = prepare_attack(sizes), prepare_training()

    def call(name: str, value: int) -> Callable[[], None]:
        if name == "n_jobs":
            return functools.partial(train, value)
        size = {**middle, name: value}
        if name == "batch_size":
            size["num_images"] = value
        return functools.partial(attack, size)

    lines = []
    sweeps: dict[str, dict[str, object]] = {}
    for name, values in sizes.items():
        seconds = common.in_turns({f"{name}={v}": call(name, v) for v in values})
        units = np.array(values, float)
        if name == "n_jobs":
            units = 1 / units
        sweep = growth(units, np.stack(list(seconds.values())))
        for (label, durations), relative in zip(
            seconds.items(), sweep["relative"], strict=True
        ):
            spreads = [*common.spread(durations, 3), *common.spread(relative)]
            lines.append([label, *spreads])
        line = f"  {sweep['slope']:.3g} * n {sweep['constant']:+.3g}"
        lines.append([line, *[""] * 6])
        sweeps[name] = {"values": values, **sweep}
    common.publish(
        ", ".join(f"{name}={value}" for name, value in middle.items()),
        [
            *("", "seconds, lowest", "median", "highest"),
            *("relative, lowest", "median", "highest"),
        ],
        lines,
        middle=middle,
        train_members=_TRAIN_MEMBERS.value,
        train_images=_TRAIN_IMAGES.value,
        epochs=_EPOCHS.value,
        **sweeps,
    )


def prepare_attack(
    sizes: Mapping[str, Sequence[int]],
) -> Callable[[Mapping[str, int]], None]:
    """Return a function that attacks an ensemble.

    Args:
        sizes: the values of each size that the function is to be called with.

    Returns:
        A function of the sizes of one attack.
    """
    from advens.attacks.threat import Threat
    from advens.evaluation.evaluate import evaluate
    from advens.models import convnet
    from advens.models.ensemble import Ensemble
    from advens.strauss2017.networks import TABLE1
    from advens.strauss2017.settings import paper_attacks

    seeds = range(max(sizes["num_members"]))
    networks = [convnet.build(TABLE1, seed=seed) for seed in seeds]
    ensembles = {n: Ensemble(networks[:n]) for n in sizes["num_members"]}
    rng = np.random.default_rng(0)
    num_images = max(*sizes["num_images"], *sizes["batch_size"])
    x = rng.random((num_images, *TABLE1.input_shape), np.float32)
    y = rng.integers(TABLE1.num_classes, size=num_images)

    def attack(size: Mapping[str, int]) -> None:
        _, bim = paper_attacks("mnist", bim_num_steps=size["num_steps"])
        evaluate(
            ensembles[size["num_members"]],
            x[: size["num_images"]],
            y[: size["num_images"]],
            threat=Threat("mean_member"),
            attacks=[bim],
            batch_size=size["batch_size"],
        )

    return attack


def prepare_training() -> Callable[[int], None]:
    """Return a function of `n_jobs` that trains members into a new store."""
    from advens import backend, datasets
    from advens.storage.store import Store
    from advens.strauss2017 import rows
    from advens.strauss2017.settings import Settings
    from advens.training.members import fit_members
    from advens.training.recipe import Member
    from advens.training.samples import member_seeds

    dataset = datasets.load("digits").subset(train_images=_TRAIN_IMAGES.value)
    settings = Settings.for_dataset("digits", epochs=_EPOCHS.value)
    recipe = rows.recipe("rand_ini", settings, 0)
    members = [
        Member(recipe, seed, dataset.checksums["train"], backend.name())
        for seed in member_seeds(0, _TRAIN_MEMBERS.value)
    ]

    def train(n_jobs: int) -> None:
        with tempfile.TemporaryDirectory() as root:
            fit_members(members, dataset, Store(root), n_jobs=n_jobs)

    return train


def growth(units: Floats, seconds: Floats) -> Growth:
    """Return how seconds, `(sizes, rounds)`, grow with units, `(sizes,)`."""
    per_unit = seconds / units[:, np.newaxis]
    slope, constant = np.polyfit(units, np.median(seconds, axis=1), 1)
    return {
        "seconds": seconds,
        "relative": per_unit / per_unit[0],
        "slope": slope,
        "constant": constant,
    }


if __name__ == "__main__":
    common.run(main)
