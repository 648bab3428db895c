import io
import itertools

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from advens.strauss2017 import columns
from advens.strauss2017.atlas_choice import atlas_frame, distances
from advens.strauss2017.cells import AtlasPoint, Cell
from advens.strauss2017.reporting.atlas_report import atlas_figure, terminal_atlas
from advens.strauss2017.reporting.captions import atlas_caption
from advens.strauss2017.reporting.figure_files import save_figure
from advens.strauss2017.reporting.figure_style import STYLES
from advens.strauss2017.reporting.result_sections import atlas_section
from advens.strauss2017.reporting.results import StoredTable

PAPER = [column for column in columns.TABLE2 if column.place is not None]


def reading_points(batch_size, error):
    """Return the points of a reading whose accuracies miss the paper's by `error`."""
    reading = {
        "logits": "linear",
        "batch_size": batch_size,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "momentum": None,
        "decay": None,
        "box": True,
        "num_members": 5,
        "seed": 0,
        "restarts": 2,
        "lost_classes": 0,
    }
    points = []

    def add(column, attack, loss, labels):
        paper = columns.paper_value("mnist", attack, "rand_ini", column.name)
        right = round((paper - error) * 10_000)
        # All other labels than the true ones miss by more.
        right -= 1000 if labels in ("predicted", "repredicted") else 0
        correct = (np.arange(10_000) < right)[None]
        zero = np.zeros_like(correct) if column.gradient else None
        cell = Cell("mnist", attack, "r", column.name, correct, zero)
        points.append(AtlasPoint(reading, loss, attack, column.name, labels, cell))

    modes = ("true", "predicted", "repredicted")
    for loss, column in itertools.product(("logits", "exact"), PAPER):
        if not column.gradient:
            add(column, "FGSM", loss, "")
            continue
        for attack, labels in itertools.product(("FGSM", "BIM"), modes):
            add(column, attack, loss, labels)
    return points


@pytest.fixture
def atlas():
    return atlas_frame([*reading_points(64, 0.05), *reading_points(32, 0.02)])


def test_distances_follow_from_the_outcomes(atlas):
    nearest, second = distances(atlas)
    assert nearest["batch_size"] == 32
    assert nearest["distance"] == pytest.approx(0.02, abs=1e-9)
    assert second["distance"] == pytest.approx(0.05, abs=1e-9)
    assert nearest["bim_grad2"] == "true"


def test_the_distances_survive_their_file(tmp_path, atlas):
    path = tmp_path / "atlas.csv"
    atlas.to_csv(path, index=False)
    read = distances(pd.read_csv(path))
    assert [r["distance"] for r in read] == pytest.approx([0.02, 0.05], abs=1e-9)
    assert read[0]["momentum"] is None
    assert read[0]["box"]


def test_the_figure_has_a_row_per_reading_and_a_column_per_number(tmp_path, atlas):
    figure = atlas_figure(atlas, distances(atlas))
    axes = figure.axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == [
        "linear, 32, adam, box; 5 members, seed 0: 0.020",
        "linear, 64, adam, box; 5 members, seed 0: 0.050",
    ]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert [name.replace("\n", " ") for name in names] == [
        "No Attack Single",
        "No Attack Ensemble",
        "FGSM Grad. 1 Single",
        "BIM Grad. 1 Single",
        "FGSM Grad. 1 Ensemble",
        "BIM Grad. 1 Ensemble",
        "FGSM Grad. 2 Ensemble",
        "BIM Grad. 2 Ensemble",
    ]
    shown = [float(text.get_text()) for text in axes.texts]
    assert shown == [-0.02] * 8 + [-0.05] * 8
    assert len(save_figure(figure, "", out_dir=tmp_path, name="atlas_mnist")) == 3


def test_a_column_of_a_paper_has_numbers_that_the_caption_explains(atlas):
    readings = distances(atlas)
    [axes] = atlas_figure(atlas, readings, STYLES["one_column"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2"]
    # In grey, darker is farther from the paper.
    near, far = axes.collections[0].get_facecolors()[[0, -1]].mean(axis=1)
    assert far < near
    record = {"attacks": [], "differs_from_the_paper": []}
    caption = atlas_caption(StoredTable(atlas, record), readings)
    assert "(1) linear, 32, adam, box; 5 members, seed 0: 0.020; (2) linear" in caption
    assert (
        "MNIST: 10000 test images; settings that differ from the paper: none."
        in caption
    )


def test_the_distances_on_the_terminal_and_on_the_page(atlas):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal_atlas(distances(atlas), title="atlas_mnist"))
    text = console.export_text()
    assert text.index("linear, 32, adam, box") < text.index("linear, 64, adam, box")
    assert "0.0200" in text
    lines = atlas_section(StoredTable(atlas, {}))
    assert "on 10000 test images" in lines[0]
    assert lines[4] == (
        "| linear, 32, adam, box | 5 | 0 | .0200 | .0200 | true | true | true | true "
        "| 2 | 0 |"
    )
