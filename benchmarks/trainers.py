"""What trains a network for an epoch: advens, Keras's `fit` and PyTorch."""

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import joblib
import keras
import numpy as np

from advens import models
from advens.datasets import Dataset
from advens.recipes import Member, Recipe
from advens.store import Store
from advens.trainer import InTraining, Trainer
from advens.training import fit_members


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, on random images and labels.

    Attributes:
        architecture: of the network.
        num_images: of an epoch.
        batch_size: of a step.
    """

    architecture: models.Architecture
    num_images: int
    batch_size: int

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and their labels, the same in every process."""
        rng = np.random.default_rng(0)
        shape = (self.num_images, *self.architecture.input_shape)
        x = rng.random(shape, np.float32)
        return x, rng.integers(self.architecture.num_classes, size=self.num_images)

    def recipe(self, dtype: str) -> Recipe:
        """Return the recipe of one epoch by Adam."""
        precision: Any = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[dtype]
        return Recipe(self.architecture, 1, self.batch_size, "adam", 1e-3, precision)


def advens_fit(case: Case, dtype: str, stack: int = 1) -> Callable[[], Any]:
    """Return an epoch of advens's training, of as many members at once as `stack`."""
    recipe = case.recipe(dtype)
    member = Member(recipe, seed=0, train_checksum="")
    trainer = Trainer(case.architecture, "adam", 1e-3, recipe.precision, None, None)
    x, y = case.data()
    states = [trainer.start(seed) for seed in range(stack)]

    def fit() -> None:
        running = [InTraining(member, x, y, state) for state in states]
        trainer.fit(running, lambda one: None)

    return fit


def advens_jobs(case: Case, n_jobs: int) -> Callable[[], Any]:
    """Return an epoch of as many members as processes, `--n_jobs` of the scripts."""
    x, y = case.data()
    names = tuple(map(str, range(case.architecture.num_classes)))
    dataset = Dataset("random", x, y, x[:1], y[:1], names)
    members = [Member(case.recipe("float32"), seed, "") for seed in range(n_jobs)]

    def fit() -> None:
        # The others, too, have started before they are measured.
        kept = joblib.parallel_config("loky", idle_worker_timeout=3600)
        with kept, tempfile.TemporaryDirectory() as root:
            fit_members(members, dataset, Store(root), n_jobs=n_jobs)

    return fit


def keras_fit(case: Case, jit_compile: bool | str = "auto") -> Callable[[], timedelta]:
    """Return an epoch of `fit` of the same network, all else as Keras has it."""
    model = models.build(case.architecture, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return functools.partial(timed_fit, model, *case.data(), batch_size=case.batch_size)


def timed_fit(model: Any, x: Any, y: Any, **options: Any) -> timedelta:
    """Return how long it takes from the start of `fit` to the end of its epoch.

    On TensorFlow `fit` often returns later (docs/performance.md): a thread that tunes
    the pipeline sleeps for 10 ms, 20, 40 and so on, and is waited for.
    """
    start, ends = time.perf_counter(), []
    end = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    model.fit(x, y, verbose=0, callbacks=[end], **options)
    return timedelta(seconds=ends[0] - start)


def torch_fit(case: Case, dtype: str) -> Callable[[], Any]:
    """Return an epoch of the same network in PyTorch, from the same weights."""
    import torch
    import torch_networks

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torch_networks.build(case.architecture)
    torch_networks.copy_weights(models.build(case.architecture, seed=0), network)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    x, y = map(torch.from_numpy, case.data())
    # A view: the images lie in memory as `channels_last` wants them.
    images, labels = x.movedim(-1, 1).to(device), y.to(device)

    def fit() -> None:
        for index in torch.randperm(len(x), device=device).split(case.batch_size):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = network(images[index])
                loss = torch.nn.functional.cross_entropy(logits, labels[index])
            loss.backward()
            optimizer.step()
        # On a GPU, waits for it.
        loss.item()

    return fit
