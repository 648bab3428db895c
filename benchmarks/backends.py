"""Whether TensorFlow and JAX judge the same weights alike, image by image.

An ensemble is trained here; then each backend, in a process of its own, attacks it in
every way that Table 2 does. What is left are images where rounding decides the sign of
a gradient close to zero.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from absl import flags

_DATASET = flags.DEFINE_string("dataset", "digits", "The data set.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "See the scripts of `reproduce`.")
_NUM_MEMBERS = flags.DEFINE_integer("num_members", 3, "Members.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 2, "Epochs of their training.", 1)
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", None, "Images to train on.")
_TEST_IMAGES = flags.DEFINE_integer("test_images", None, "Images to attack.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Attack these; for the script itself.")
_OUTCOMES = flags.DEFINE_string("outcomes", None, "Write these; likewise.")


def main() -> None:
    """Train, let each backend attack, compare and print."""
    from advens import datasets, models

    dataset = datasets.load(_DATASET.value, data_dir=_DATA_DIR.value)
    dataset = dataset.subset(_TRAIN_IMAGES.value, _TEST_IMAGES.value)
    members = [
        models.build(models.base(_DATASET.value), seed=i)
        for i in range(_NUM_MEMBERS.value)
    ]
    if _WEIGHTS.value:
        attack(members, dataset)
        return
    for member in members:
        member.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        train = dataset.x_train, dataset.y_train
        member.fit(*train, epochs=_EPOCHS.value, batch_size=64, verbose=0)
    weights = [w for member in members for w in member.get_weights()]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        np.savez(path / "weights.npz", *weights)
        found, seconds = {}, {}
        for backend in ("tensorflow", "jax"):
            outcomes = path / f"{backend}.npz"
            start = time.perf_counter()
            subprocess.run(
                [
                    *(sys.executable, *sys.argv),
                    *("--weights", path / "weights.npz", "--outcomes", outcomes),
                ],
                env={**os.environ, "KERAS_BACKEND": backend},
                check=True,
            )
            seconds[backend] = time.perf_counter() - start
            found[backend] = np.load(outcomes)
    ours, theirs = found["tensorflow"], found["jax"]
    rows, agreement = [], {}
    for name in ours.files:
        agreement[name] = float(np.mean(ours[name] == theirs[name]))
        accuracies = (f"{np.mean(f[name]):.4f}" for f in (ours, theirs))
        rows.append([name, *accuracies, f"{agreement[name]:.4f}"])
    count = len(dataset.x_test)
    common.publish(
        f"{len(members)} members, {count} images of {_DATASET.value}",
        ["cell", "TensorFlow", "JAX", "same outcome"],
        rows,
        agreement=agreement,
        num_images=count,
        seconds_with_compilation=seconds,
    )


def attack(members, dataset) -> None:  # type: ignore[no-untyped-def]
    """Attack given weights and write who is right, cell by cell."""
    from advens import experiments
    from advens.attacks import paper_attacks
    from advens.ensemble import Ensemble
    from advens.evaluation import evaluate

    arrays = np.load(_WEIGHTS.value)
    weights = [arrays[name] for name in arrays.files]
    size = len(weights) // len(members)
    for i, member in enumerate(members):
        member.set_weights(weights[i * size : (i + 1) * size])
    attacks = paper_attacks(_DATASET.value)
    found = {}
    data = Ensemble(members), dataset.x_test, dataset.y_test
    for name, threat in experiments.table2_threats(len(members)).items():
        outcomes = evaluate(*data, threat=threat, attacks=attacks)
        for settings, outcome in zip(attacks, outcomes, strict=True):
            right = [*outcome.members, outcome.ensemble]
            found[f"{name}, {settings.name}"] = np.stack(right)
    np.savez(_OUTCOMES.value, **found)


if __name__ == "__main__":
    common.run(main)
