"""Whether TensorFlow and JAX judge the same weights alike, image by image.

An ensemble is trained once. Then each backend, in a process of its own, attacks it
along each gradient of Table 2. The outcomes can only differ on images where rounding
decides the sign of a gradient that is close to zero.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import app, flags

import common
from advens.arrays import Answers

if TYPE_CHECKING:
    import keras

    from advens.attacks.threat import Threat
    from advens.datasets import Dataset

_DATASET = flags.DEFINE_enum(
    "dataset", "digits", ["digits", "mnist", "cifar10"], "The data set."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Directory with mnist.npz and cifar10.npz; default: ADVENS_DATA_DIR. Without it, "
    "Keras downloads them.",
)
_NUM_MEMBERS = flags.DEFINE_integer("num_members", 3, "Members of the ensemble.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 2, "Epochs of training.", 1)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", None, "Train on the first so many images."
)
_TEST_IMAGES = flags.DEFINE_integer(
    "test_images", None, "Attack the first so many test images."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", "", "Attack these weights. The benchmark calls itself with this flag."
)
_OUTCOMES = flags.DEFINE_string(
    "outcomes", "", "File of the outcomes. It belongs to --weights."
)


def main() -> None:
    """Train, let each backend attack, compare and publish."""
    if bool(_WEIGHTS.value) != bool(_OUTCOMES.value):
        raise app.UsageError("`weights` and `outcomes` must be given both or neither.")
    from advens import datasets
    from advens.models import convnet
    from advens.strauss2017 import networks

    dataset = datasets.load(_DATASET.value, data_dir=_DATA_DIR.value)
    dataset = dataset.subset(_TRAIN_IMAGES.value, _TEST_IMAGES.value)
    members = [
        convnet.build(networks.base(dataset.name), seed=i)
        for i in range(_NUM_MEMBERS.value)
    ]
    if _WEIGHTS.value:
        attack(members, dataset, weights=_WEIGHTS.value, out=_OUTCOMES.value)
        return
    for member in members:
        member.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        member.fit(
            dataset.x_train,
            dataset.y_train,
            epochs=_EPOCHS.value,
            batch_size=64,
            verbose=0,
        )
    weights = [array for member in members for array in member.get_weights()]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        np.savez(path / "weights.npz", *weights)
        outcomes: dict[str, dict[str, Answers]] = {}
        seconds = {}
        for backend in ("tensorflow", "jax"):
            start = time.perf_counter()
            outcomes[backend] = _attack_by(backend, path)
            seconds[backend] = time.perf_counter() - start
    lines, agreement = [], {}
    for name, by_tensorflow in outcomes["tensorflow"].items():
        by_jax = outcomes["jax"][name]
        agreement[name] = float(np.mean(by_tensorflow == by_jax))
        shown = by_tensorflow.mean(), by_jax.mean(), agreement[name]
        lines.append([name, *(f"{value:.4f}" for value in shown)])
    num_images = len(dataset.x_test)
    common.publish(
        f"{len(members)} members, {num_images} images of {dataset.name}",
        ["accuracy", "TensorFlow", "JAX", "same outcome"],
        lines,
        agreement=agreement,
        num_images=num_images,
        seconds_with_compilation=seconds,
    )


def _attack_by(backend: str, path: Path) -> dict[str, Answers]:
    """Call this benchmark on another backend, with the weights that lie in `path`."""
    outcomes = path / f"{backend}.npz"
    files = f"--weights={path / 'weights.npz'}", f"--outcomes={outcomes}"
    subprocess.run(
        [sys.executable, *sys.argv, *files],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
    )
    with np.load(outcomes) as arrays:
        return dict(arrays)


def attack(
    members: "Sequence[keras.Model]", dataset: "Dataset", *, weights: str, out: str
) -> None:
    """Attack an ensemble of given weights and write which answers are right.

    Args:
        members: the networks, which are given the weights.
        dataset: the test images.
        weights: file of the members' weights, one array after another.
        out: file to write. It holds, for each gradient and attack, `(m + 1, n)` bool:
            the answers of the `m` members and, last, of the ensemble.
    """
    from advens.evaluation.evaluate import evaluate
    from advens.models.ensemble import Ensemble
    from advens.strauss2017.settings import paper_attacks

    with np.load(weights) as file:
        arrays = list(file.values())
    size = len(arrays) // len(members)
    for i, member in enumerate(members):
        member.set_weights(arrays[i * size : (i + 1) * size])
    ensemble = Ensemble(members)
    attacks = paper_attacks(dataset.name)
    answers: dict[str, Answers] = {}
    for name, threat in named_threats(len(members)).items():
        outcomes = evaluate(
            ensemble, dataset.x_test, dataset.y_test, threat=threat, attacks=attacks
        )
        for settings, outcome in zip(attacks, outcomes, strict=True):
            answers[f"{name}, {settings.name}"] = np.stack(
                [*outcome.members, outcome.ensemble]
            )
    np.savez(out, **answers)  # type: ignore[arg-type]


def named_threats(num_members: int) -> "dict[str, Threat]":
    """Return the gradients of Table 2, each once, by name.

    A gradient of the whole ensemble is named after its column, such as
    `"grad2_ensemble_exact"`. The gradient of member 0 is `"grad1_0"` or, of the exact
    loss, `"grad1_0_exact"`.
    """
    from advens.strauss2017.readings import PRINTED, columns_read

    names: dict[Threat, str] = {}
    for column in columns_read("table2", PRINTED.labels):
        for threat in column.threats("FGSM", num_members):
            if threat is None or threat in names:
                continue
            name = column.name
            if threat.index is not None:
                # `grad1_single` is the first column of this gradient.
                name = name.replace("single", str(threat.index))
            names[threat] = name
    return {name: threat for threat, name in names.items()}


if __name__ == "__main__":
    common.run(main)
