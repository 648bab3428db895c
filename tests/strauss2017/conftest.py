"""Runs of small networks on few digits."""

import dataclasses

import numpy as np
import pytest

from advens import datasets
from advens.models import convnet
from advens.storage.store import Store
from advens.strauss2017 import networks
from advens.strauss2017.run import Run
from advens.strauss2017.settings import Settings, paper_attacks
from advens.training.state import KIND

SMALL = dataclasses.replace(networks.TABLE1, blocks=((4, 4),), units=8)


@pytest.fixture(scope="module")
def make_run():
    """Return a function that makes runs; the paper's networks stay small for it."""

    def make(root, **options):
        defaults = {
            "dataset": datasets.load("digits").subset(160, 40),
            "settings": Settings.for_dataset("digits", epochs=2),
            "attacks": paper_attacks("digits", bim_num_steps=3),
            "num_members": 3,
            "n_jobs": 1,
        }
        return Run(store=Store(root), **{**defaults, **options})

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks._BASE, "digits", SMALL)
        variants = (((4, 4),), ((6, 4),), ((4, 4, 4),))
        patch.setitem(networks.MIXED_BLOCKS, SMALL, variants)
        yield make


@pytest.fixture(scope="module")
def save_untrained():
    """Return a function that stores members with their initial weights."""

    def save(run, members, change=lambda index, weights: None):
        for index, member in enumerate(members):
            network = convnet.build(member.recipe.architecture, seed=member.seed)
            weights = network.get_weights()
            change(index, weights)
            arrays = {f"weight_{i:03d}": array for i, array in enumerate(weights)}
            arrays["attempt"] = np.array(index)
            run.store.save(KIND, member.spec, arrays)

    return save


@pytest.fixture
def nothing_to_do(monkeypatch):
    """Let every training and every attack fail."""

    def fail(*args, **kwargs):
        raise AssertionError("the store should have held this")

    monkeypatch.setattr("advens.training.members._fit", fail)
    monkeypatch.setattr("advens.strauss2017.run.evaluate_batches", fail)
