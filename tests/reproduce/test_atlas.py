import json

import numpy as np
import pandas as pd
import pytest

import atlas
from advens.strauss2017.cells import AtlasPoint, Cell

READING = {
    "logits": "linear",
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "momentum": None,
    "decay": None,
    "box": True,
    "num_members": 5,
    "seed": 0,
    "restarts": 0,
    "lost_classes": 0,
}


def test_what_is_done_is_written_after_each_reading(call, directory, monkeypatch):
    seen = []

    def measure_atlas(run, *, after_reading):
        correct = np.ones((1, len(run.dataset.y_test)), bool)
        points = []
        for batch_size in (32, 64):
            cell = Cell("digits", "FGSM", f"{batch_size}", "no_attack_single", correct)
            reading = {**READING, "batch_size": batch_size}
            points.append(AtlasPoint(reading, "logits", "FGSM", cell.column, "", cell))
            after_reading(points)
            seen.append(pd.read_csv("results/atlas_digits.csv"))

    monkeypatch.setattr("advens.strauss2017.atlas.measure_atlas", measure_atlas)
    call(atlas.atlas, "--test_images=12", "--every=3")
    assert [list(frame["batch_size"]) for frame in seen] == [[32], [32, 64]]
    # Every third of twelve images.
    assert set(seen[1]["num_images"]) == {4}
    record = json.loads((directory / "results/atlas_digits.json").read_text())
    assert record["flags"]["every"] == 3
    assert (directory / "results/atlas_digits_outcomes.npz").exists()
    # The paper has no numbers of the digits to draw differences from.
    assert not list(directory.glob("figures/*"))


@pytest.mark.parametrize("flag", ["--batch_size=32", "--box", "--num_members=2"])
def test_what_the_atlas_tries_itself_is_refused(call, flag):
    name = flag.removeprefix("--").split("=")[0]
    with pytest.raises(ValueError, match=f"`{name}` has no effect here"):
        call(atlas.atlas, flag)
