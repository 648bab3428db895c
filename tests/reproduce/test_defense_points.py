import json

import numpy as np
import pandas as pd

import defense_points
from advens.strauss2017.cells import Cell, DefensePoint


def test_what_is_done_is_written_after_each_combination(call, directory, monkeypatch):
    seen = []

    def measure_points(run, *, after_combination):
        assert run.num_members == 3
        correct = np.ones((1, len(run.dataset.y_test)), bool)
        points = []
        for eps in (0.1, 0.2):
            cell = Cell("digits", "FGSM", "adv_train", "fgsm", correct)
            points.append(DefensePoint({"adv_eps": eps}, cell))
            after_combination(points)
            seen.append(pd.read_csv("results/defense_points_digits.csv"))

    monkeypatch.setattr(
        "advens.strauss2017.defense_points.measure_points", measure_points
    )
    call(defense_points.defense_points, "--test_images=12")
    assert [list(frame["adv_eps"]) for frame in seen] == [[0.1], [0.1, 0.2]]
    record = json.loads((directory / "results/defense_points_digits.json").read_text())
    assert record["flags"]["num_members"] == 3
    assert record["reading"]["name"] == "printed"
