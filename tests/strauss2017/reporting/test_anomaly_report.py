import itertools
from typing import get_args

import numpy as np
from numpy.testing import assert_allclose

from advens.attacks.threat import Attack, LabelMode
from advens.strauss2017 import columns
from advens.strauss2017.cells import AnomalyPoint, Cell
from advens.strauss2017.reporting import anomaly_report


def points(dataset="mnist"):
    """Return one point for each column, reading of the labels, box and step."""
    counts = iter(np.random.default_rng(8).permutation(501))
    every = []
    for column in columns.ANOMALY:
        for labels in ("repredicted", "true", "predicted"):
            for box, n in itertools.product((True, False), range(1, 13)):
                correct = np.arange(500)[None] < next(counts)
                zero = np.zeros_like(correct)
                name = f"{column.name}_{labels}{'_box' if box else ''}"
                cell = Cell(dataset, f"BIM {n}", "bagging", name, correct, zero)
                attack = Attack("BIM", 0.2, 0.025, n, box)
                every.append(AnomalyPoint(column.name, labels, attack, cell))
    return every


def test_the_frame_has_one_row_per_point():
    frame = anomaly_report.anomaly_frame(points())
    assert list(frame.columns) == [
        *("dataset", "method", "column", "labels", "box", "eps", "step_size"),
        *("num_steps", "accuracy", "wilson_low", "wilson_high", "lowest_member"),
        *("highest_member", "num_members", "num_images", "zero_gradient_share"),
        "right_at_zero_gradient",
    ]
    for (_, row), point in zip(frame.iterrows(), points(), strict=True):
        assert (row["dataset"], row["method"]) == ("mnist", "Bagging")
        assert (row["column"], row["labels"]) == (point.column, point.labels)
        assert (row["box"], row["num_steps"]) == (
            point.attack.box,
            point.attack.num_steps,
        )
        assert_allclose(row["accuracy"], point.cell.accuracy, rtol=1e-12)


def test_the_terminal_shows_one_step_with_the_papers_numbers_below():
    frame = anomaly_report.anomaly_frame(points())
    accuracy = frame.set_index(["column", "labels", "box", "num_steps"])["accuracy"]
    names = [column.name for column in columns.ANOMALY]
    for dataset, paper in (("mnist", ["0.1110", "0.7068", "0.9233"]), ("digits", [])):
        table = anomaly_report.terminal_anomaly(
            points(dataset), num_steps=8, title="title"
        )
        rows = [list(r) for r in zip(*(c.cells for c in table.columns), strict=True)]
        if paper:
            assert rows.pop() == ["paper", "", *paper, ""]
        keys = itertools.product(get_args(LabelMode), (False, True))
        for row, (labels, box) in zip(rows, keys, strict=True):
            shown = [f"{accuracy[name, labels, box, 8]:.4f}" for name in names]
            assert row == [labels, "yes" if box else "no", *shown]
