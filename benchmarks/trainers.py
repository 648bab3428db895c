"""What trains a network for one epoch: advens, Keras's `fit` and PyTorch."""

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
import numpy.typing as npt

from advens import backend
from advens.arrays import Tensor
from advens.datasets import Dataset
from advens.models import convnet
from advens.models.architecture import Architecture
from advens.storage.store import Store
from advens.training.members import fit_members
from advens.training.recipe import Member, Recipe
from advens.training.state import MemberInTraining
from advens.training.trainer import Trainer
from common import Call


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, on random images and labels.

    Attributes:
        architecture: the network.
        num_images: images per epoch.
        batch_size: images per step.
    """

    architecture: Architecture
    num_images: int
    batch_size: int

    def data(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return the images and their labels, the same in every process."""
        rng = np.random.default_rng(0)
        shape = (self.num_images, *self.architecture.input_shape)
        x = rng.random(shape, np.float32)
        return x, rng.integers(self.architecture.num_classes, size=self.num_images)

    def recipe(self, dtype: str) -> Recipe:
        """Return the recipe of one epoch with Adam, in float32 or bfloat16."""
        return Recipe(
            self.architecture,
            epochs=1,
            batch_size=self.batch_size,
            optimizer="adam",
            learning_rate=1e-3,
            precision="float32" if dtype == "float32" else "mixed_bfloat16",
        )

    def member(self, dtype: str, seed: int) -> Member:
        """Return a member that is trained by this recipe."""
        return Member(
            self.recipe(dtype), seed, train_checksum="", backend=backend.name()
        )


def make_trainer(recipe: Recipe) -> Trainer:
    """Return the trainer of the members of a recipe on Keras's backend."""
    if backend.name() == "jax":
        from advens.training.stacked_trainer import StackedTrainer

        return StackedTrainer(recipe)
    from advens.training.keras_trainer import KerasTrainer

    return KerasTrainer(recipe)


def advens_fit(case: Case, dtype: str, stack: int = 1) -> Call:
    """Return one epoch of advens's training, of `stack` members in one program."""
    member = case.member(dtype, seed=0)
    trainer = make_trainer(member.recipe)
    x, y = case.data()
    states = [trainer.start(seed) for seed in range(stack)]

    def fit() -> None:
        running = [MemberInTraining(member, x, y, state) for state in states]
        trainer.fit(running, lambda training: None)

    return fit


def advens_jobs(case: Case, n_jobs: int) -> Call:
    """Return one epoch of `n_jobs` members in as many processes, as the scripts do."""
    x, y = case.data()
    class_names = tuple(map(str, range(case.architecture.num_classes)))
    dataset = Dataset("random", x, y, x[:1], y[:1], class_names)
    members = [case.member("float32", seed) for seed in range(n_jobs)]

    def fit() -> None:
        # The processes are kept: their start is not measured, as no contender's is.
        kept = joblib.parallel_config("loky", idle_worker_timeout=3600)
        with kept, tempfile.TemporaryDirectory() as root:
            fit_members(members, dataset, Store(root), n_jobs=n_jobs)

    return fit


def keras_fit(case: Case, jit_compile: bool | str = "auto") -> Callable[[], timedelta]:
    """Return one epoch of `fit` of the same network, with Keras's other defaults."""
    model = convnet.build(case.architecture, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return functools.partial(timed_fit, model, *case.data(), batch_size=case.batch_size)


def timed_fit(model: keras.Model, x: Tensor, y: Tensor, **options: Any) -> timedelta:
    """Return how long it takes from the start of `fit` to the end of its epoch.

    On TensorFlow `fit` itself often returns later (docs/performance.md): it waits for a
    thread that tunes the pipeline and sleeps for 10 ms, 20 ms, 40 ms and so on.

    Args:
        model: what is trained.
        x: its images.
        y: their labels.
        **options: arguments of `keras.Model.fit`.
    """
    ends: list[float] = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    start = time.perf_counter()
    model.fit(x, y, verbose=0, callbacks=[callback], **options)
    return timedelta(seconds=ends[0] - start)


def torch_fit(case: Case, dtype: str) -> Call:
    """Return one epoch of the same network in PyTorch, from the same weights."""
    import torch

    import torch_networks

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torch_networks.build(case.architecture)
    torch_networks.copy_weights(convnet.build(case.architecture, seed=0), network)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    x, y = map(torch.from_numpy, case.data())
    # A view: the images already lie in memory in the order of `channels_last`.
    images, labels = x.movedim(-1, 1).to(device), y.to(device)

    def fit() -> None:
        for index in torch.randperm(len(x), device=device).split(case.batch_size):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = network(images[index])
                loss = torch.nn.functional.cross_entropy(logits, labels[index])
            loss.backward()
            optimizer.step()
        # On a GPU this waits for the result.
        loss.item()

    return fit
