"""What must not change: the store's addresses, and the files made from outcomes.

Nothing is trained or attacked here. A store that holds everything answers every request
with bits drawn from the address, so that one wrong address changes every file behind
it. `python tests/test_golden.py` writes the files anew, for the one who means to change
them.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from advens import datasets
from advens.datasets import Dataset
from advens.evaluation.outcomes import Outcomes, pack_outcomes
from advens.storage.addresses import digest
from advens.strauss2017 import constants, rows
from advens.strauss2017.anomaly import measure_anomaly
from advens.strauss2017.claims import judge_alternatives
from advens.strauss2017.experiments import table2, table4
from advens.strauss2017.noise_sweep import measure_noise
from advens.strauss2017.reporting import ledger, tables
from advens.strauss2017.reporting.anomaly_report import anomaly_frame
from advens.strauss2017.reporting.noise_report import noise_cells_to_pack, noise_frame
from advens.strauss2017.run import Run
from advens.strauss2017.settings import Settings, paper_attacks
from advens.training import members
from advens.training.recipe import Member

GOLDEN = Path(__file__).parent / "golden"
TABLE2_ROWS = ["rand_ini", "mix_mod", "bagging", "gauss_noise"]
TABLE4_ROWS = [
    *("bagging", "adv_train", "def_dist", "bagging+adv_train", "bagging+def_dist"),
    "gauss_noise+adv_train+def_dist",
]
OTHER_SETTINGS = {
    "epochs": 2,
    "batch_size": 32,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "precision": "mixed_bfloat16",
    "noise_std": 0.25,
    "logits": "linear",
    "adv_eps": 0.1,
    "rho": 0.25,
    "temperature": 20.0,
    "distillation": "papernot",
}


class FullStore:
    """A store that holds whatever it is asked for, and notes its address."""

    root = Path("full")

    def __init__(self, num_images):
        self.num_images = num_images
        self.asked = []

    def has(self, kind, spec):
        return False  # so that members are asked for, too

    def steps_done(self, kind, spec):
        return None

    def load(self, kind, spec):
        self.asked.append(f"{kind}/{digest(spec)}")
        if kind != "outcomes":
            return {"attempt": np.array(0)}
        rng = np.random.default_rng(int(digest(spec), 16))
        shape = len(spec["members"]), self.num_images
        return pack_outcomes(
            [
                Outcomes(
                    rng.random(shape) < 0.6,
                    rng.random(self.num_images) < 0.7,
                    (rng.random(self.num_images) < 0.1) & (spec["threat"] is not None),
                )
                for _ in spec["attacks"] or ["none"]
            ]
        )


def full_run(name, changes):
    """Return a run on data of the shape of `name` that has nothing left to do."""
    shape = (32, 32, 3) if name == "cifar10" else (28, 28, 1)
    y = np.arange(40) % 10
    x = np.linspace(0, 1, 40 * int(np.prod(shape)), dtype="float32")
    x = x.reshape(40, *shape)
    dataset = Dataset(name, x, y, x, y, datasets._CLASS_NAMES[name])
    return Run(
        dataset,
        Settings.for_dataset(name, **changes),
        paper_attacks(name, box=bool(changes)),
        FullStore(40),
        num_members=2,
        seed=3,
        n_jobs=1,
    )


def everything(out_dir):
    """Write the files of full runs to a directory; return all addresses."""
    asked = {}
    all_cells = []
    for name in constants.EPOCHS:
        for changes in ({}, OTHER_SETTINGS):
            run = full_run(name, changes)
            cells2 = table2(run, TABLE2_ROWS)
            cells4 = table4(run, TABLE4_ROWS, num_singles=2)
            sweep = measure_noise(run, [0.1, 0.2])
            points = measure_anomaly(run, "rand_ini")
            key = f"{name}, {'other settings' if changes else 'defaults'}"
            asked[key] = list(dict.fromkeys(run.store.asked))
            if changes:
                continue
            write = {"y_test": run.dataset.y_test, "out_dir": out_dir}
            tables.write_table(cells2, {}, name=f"table2_{name}", **write)
            tables.write_table(cells4, {}, name=f"table4_{name}", **write)
            frame, cells = noise_frame(sweep), noise_cells_to_pack(sweep)
            tables.write_frame(frame, cells, {}, name=f"noise_sweep_{name}", **write)
            frame, cells = anomaly_frame(points), [point.cell for point in points]
            tables.write_frame(frame, cells, {}, name=f"anomaly_{name}", **write)
            all_cells += [*cells2, *cells4]
    ledger.write_ledger(judge_alternatives(all_cells), [], out_dir=out_dir)
    return asked


def labels_addresses():
    """Return the addresses of smoothed labels."""
    asked = []
    for name in constants.EPOCHS:
        for changes in ({}, OTHER_SETTINGS):
            store = FullStore(40)
            store.load = lambda kind, spec, store=store: (
                store.asked.append(f"{kind}/{digest(spec)}") or {"labels": None}
            )
            settings = Settings.for_dataset(name, **changes)
            recipe = rows.recipe("bagging+def_dist", settings, 0)
            member = Member(recipe, 3, "0" * 64, keras.backend.backend())
            members._smoothed_labels(member, None, store)
            asked += store.asked
    return asked


def files(directory):
    """Return the text of the CSV files, and a checksum of the bits in each archive."""
    found = {}
    for path in sorted(directory.iterdir()):
        if path.suffix == ".csv":
            found[path.name] = path.read_text("utf-8")
        elif path.suffix == ".npz":
            hashed = hashlib.sha256()
            with np.load(path) as arrays:
                for key in arrays.files:
                    hashed.update(key.encode() + arrays[key].tobytes())
            found[path.name + ".sha256"] = hashed.hexdigest() + "\n"
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("golden")
    return everything(out_dir), files(out_dir)


def test_the_store_is_asked_for_the_same_addresses(made):
    asked, _ = made
    golden = json.loads((GOLDEN / "addresses.json").read_text())
    assert asked == golden[keras.backend.backend()]["runs"]
    assert labels_addresses() == golden[keras.backend.backend()]["labels"]


def test_the_same_outcomes_give_the_same_files(made):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the files were made from addresses of the TensorFlow backend")
    _, found = made
    golden = {
        path.name: path.read_text("utf-8")
        for path in GOLDEN.iterdir()
        if path.name != "addresses.json"
    }
    assert found.keys() == golden.keys()
    for name, text in golden.items():
        assert found[name] == text, name


def test_no_field_of_a_recipe_is_left_out_of_its_address():
    usual = rows.recipe("rand_ini", Settings.for_dataset("digits"), 0)
    fields = {field.name for field in dataclasses.fields(usual)}
    spec = Member(usual, 0, "0" * 64, "jax").spec
    absent = {"adversarial", "distillation", "momentum", "decay"}
    assert fields - spec["recipe"].keys() == absent


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        addresses = {"runs": everything(Path(directory)), "labels": labels_addresses()}
        path = GOLDEN / "addresses.json"
        golden = json.loads(path.read_text()) if path.exists() else {}
        golden[keras.backend.backend()] = addresses
        path.write_text(json.dumps(golden, indent=1) + "\n")
        if keras.backend.backend() == "tensorflow":
            for name, text in files(Path(directory)).items():
                (GOLDEN / name).write_text(text, "utf-8")
