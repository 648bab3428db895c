import itertools
from typing import get_args

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from numpy.testing import assert_allclose
from PIL import Image

from advens.attacks.threat import Attack, LabelMode
from advens.datasets import Dataset
from advens.strauss2017 import columns, rows
from advens.strauss2017.cells import AnomalyPoint, Cell
from advens.strauss2017.examples import Examples
from advens.strauss2017.readings import PRINTED, columns_read
from advens.strauss2017.reporting import figures
from advens.strauss2017.reporting.anomaly_report import anomaly_frame
from advens.strauss2017.reporting.figure_files import save_figure
from advens.strauss2017.reporting.figure_style import STYLES
from advens.strauss2017.reporting.table_bars import BARS
from advens.strauss2017.reporting.tables import cell_frame

ATTACKS = ("FGSM", "BIM")
NAMES = tuple(c.name for c in columns_read("table2", PRINTED.labels))
LEGENDS = [
    "Grad. 1 Single",
    "Grad. 1 Ensemble",
    "Grad. 2 Ensemble",
    "Grad. 2 Ensemble, labels re-predicted",
    "No Attack Single",
    "No Attack Ensemble",
]


def cells(dataset="mnist", methods=rows.TABLE2_ROWS, names=NAMES):
    """Every cell has an accuracy of its own, over 500 images."""
    rng = np.random.default_rng(7)
    counts = iter(rng.permutation(501))
    return [
        Cell(dataset, attack, row, column, np.arange(500)[None] < next(counts))
        for attack in ATTACKS
        for row in methods
        for column in names
    ]


def panels(figure):
    return {ax.get_title().split("\n")[0]: ax for ax in figure.axes}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def bars_of(ax):
    return [container for container in ax.containers if hasattr(container, "patches")]


def test_bars_whiskers_and_markers_are_the_cells():
    # In another order than they are drawn in.
    every = cells()[::-1] + cells("cifar10", ["bagging", "rand_ini"])
    frame = cell_frame(every)
    figure = figures.figure2(frame, {"mnist": [], "cifar10": []})
    by_title = panels(figure)
    assert list(by_title) == [
        "MNIST, FGSM",
        "MNIST, BIM",
        "CIFAR-10, FGSM",
        "CIFAR-10, BIM",
    ]
    for title, ax in by_title.items():
        name, attack = title.split(", ")
        dataset = name.replace("-", "").lower()
        drawn = rows.TABLE2_ROWS if dataset == "mnist" else ("rand_ini", "bagging")
        methods = [rows.label(row) for row in drawn]
        labels = [text.get_text() for text in ax.get_xticklabels()]
        assert [label.replace("\n", " ") for label in labels] == methods
        panel = frame[(frame["dataset"] == dataset) & (frame["attack"] == attack)]
        assert len(panel) == len(drawn) * 10
        bars = bars_of(ax)
        assert [container.get_label() for container in bars] == LEGENDS
        circles = [line for line in ax.lines if line.get_marker() == "o"]
        assert len(circles) == 5
        crosses = [line for line in ax.lines if line.get_marker() == "x"]
        exact = panel.pivot(index="method", columns="column", values="accuracy")
        for cross, column in zip(
            crosses, ("grad1_single", "grad1_ensemble", "grad2_ensemble"), strict=True
        ):
            accuracies = exact.loc[methods, f"{column}_exact"]
            assert_allclose(cross.get_ydata(), accuracies, rtol=1e-12)
        right = -np.inf
        drawn_bars = [column for column in BARS if column.name in NAMES]
        for column, bar, whisker in zip(drawn_bars, bars, ax.collections, strict=True):
            ours = panel[panel["column"] == column.name].set_index("method")
            ours = ours.loc[methods]
            heights = [patch.get_height() for patch in bar]
            assert_allclose(heights, ours["accuracy"], rtol=1e-12)
            segments = np.array(whisker.get_segments())
            assert_allclose(segments[:, 0, 1], ours["wilson_low"], atol=1e-12)
            assert_allclose(segments[:, 1, 1], ours["wilson_high"], atol=1e-12)
            middles = [patch.get_x() + patch.get_width() / 2 for patch in bar]
            assert_allclose(segments[:, 0, 0], middles, rtol=1e-12)
            assert_allclose(np.round(middles), range(len(methods)), atol=1e-12)
            assert middles[0] > right
            right = middles[0]
            if column.place is not None:
                circle = circles.pop(0)
                paper = [
                    columns.paper_value(dataset, attack, row, column.name)
                    for row in drawn
                ]
                assert_allclose(circle.get_ydata(), paper, rtol=1e-12)
                assert_allclose(circle.get_xdata(), middles, rtol=1e-12)
                assert circle.get_markerfacecolor() == "none"
    assert legend(figure) == [
        *LEGENDS,
        *("the paper's value", "exact gradients", "Wilson 95 % interval"),
    ]


def test_only_other_labels_are_hatched():
    figure = figures.figure2(cell_frame(cells()), {"mnist": []})
    bars = bars_of(figure.axes[0])
    hatched = [bar.get_label() for bar in bars if bar.patches[0].get_hatch()]
    assert hatched == ["Grad. 2 Ensemble, labels re-predicted"]


def test_bars_differ_in_grey():
    figure = figures.figure2(cell_frame(cells()), {"mnist": []})
    bars = bars_of(figure.axes[0])
    lightness = np.sort(grey(bar.patches[0].get_facecolor() for bar in bars))
    assert len(lightness) == 6
    # 1/8 of the way from black to white.
    assert np.diff(lightness).min() > 1 / 8


def test_what_is_missing_is_left_out_and_deviations_are_named():
    frame = cell_frame(cells("digits", ["bagging"], ["grad1_single"]))
    deviations = [f"setting_{i}=1" for i in range(9)]
    figure = figures.figure2(frame, {"digits": deviations})
    assert legend(figure) == ["Grad. 1 Single", "Wilson 95 % interval"]
    for attack, ax in zip(ATTACKS, figure.axes, strict=True):
        first, *lines = ax.get_title().split("\n")
        assert first == f"Digits, {attack}"
        notes = " ".join(lines)
        assert notes == f"differs from the paper: {', '.join(deviations)}"
        assert max(map(len, lines)) <= 26
        assert len(ax.patches) == 1


def test_a_method_without_a_column_keeps_its_place():
    every = cells("mnist", ["rand_ini", "bagging"])
    kept = [c for c in every if (c.row, c.column) != ("rand_ini", "grad1_ensemble")]
    figure = figures.figure2(cell_frame(kept), {"mnist": []})
    [bars] = [b for b in bars_of(figure.axes[0]) if b.get_label() == "Grad. 1 Ensemble"]
    [middle] = [bar.get_x() + bar.get_width() / 2 for bar in bars if bar.get_height()]
    assert round(middle) == 1


def points(dataset="mnist"):
    """Return one point of the anomaly for each column, reading, box and step."""
    counts = iter(np.random.default_rng(8).permutation(501))
    every = []
    for column in columns.ANOMALY:
        for labels in ("repredicted", "true", "predicted"):
            for box, n in itertools.product((True, False), range(1, 13)):
                correct = np.arange(500)[None] < next(counts)
                zero = np.zeros_like(correct)
                cell = Cell(dataset, "BIM", "bagging", column.name, correct, zero)
                attack = Attack("BIM", 0.2, 0.025, n, box)
                every.append(AnomalyPoint(column.name, labels, attack, cell))
    return every


def test_anomaly_has_one_panel_per_reading_and_one_line_per_gradient_and_box():
    frame = anomaly_frame(points())
    figure = figures.anomaly_figure(frame, ["test_images=1000 of 10000"])
    assert figure.get_suptitle().split("\n") == [
        "MNIST, Bagging, BIM (ε = 0.2, α = 0.025)",
        "differs from the paper: test_images=1000 of 10000",
    ]
    assert list(panels(figure)) == [
        "true labels",
        "labels predicted once",
        "labels predicted at every step",
    ]
    names = {
        "grad1_single": "Grad. 1 Single",
        "grad1_ensemble": "Grad. 1 Ensemble",
        "grad2_ensemble": "Grad. 2 Ensemble",
        "ensemble_gradient": "Ensemble Gradient",
    }
    for labels, ax in zip(get_args(LabelMode), figure.axes, strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        assert len(lines) == len(ax.lines) == 8
        for column, box in itertools.product(names, (False, True)):
            line = lines[f"{names[column]}, box" if box else names[column]]
            assert line.get_linestyle() == ("--" if box else "-")
            ours = frame[
                (frame["labels"] == labels)
                & (frame["column"] == column)
                & (frame["box"] == box)
            ]
            assert_allclose(line.get_xdata(), range(1, 13), atol=1e-12)
            assert_allclose(line.get_ydata(), ours["accuracy"], rtol=1e-12)
        assert len({line.get_color() for line in ax.lines}) == 4
        assert len({str(line.get_marker()) for line in ax.lines}) == 4
    assert legend(figure) == [
        label for name in names.values() for label in (name, f"{name}, box")
    ]


def grey(colors):
    """Return their lightness by the weights of Pillow, and of most printers."""
    return np.array([to_rgb(color) for color in colors]) @ [0.299, 0.587, 0.114]


def test_lines_in_print_differ_in_grey_and_are_dark_enough():
    frame = anomaly_frame(points())
    ax, *_ = figures.anomaly_figure(frame, [], STYLES["one_column"]).axes
    lightness = np.sort(grey({line.get_color() for line in ax.lines}))
    assert len(lightness) == 4
    assert np.diff(lightness).min() > 0.1
    assert lightness.max() < 0.6


def test_a_column_of_a_paper_has_its_panels_below_each_other():
    one, two = (STYLES[name] for name in ("one_column", "two_columns"))

    def shapes(draw, *arguments):
        both = (draw(*arguments, style).axes[0] for style in (one, two))
        return [ax.get_subplotspec().get_gridspec().get_geometry() for ax in both]

    frame = anomaly_frame(points())
    assert shapes(figures.anomaly_figure, frame, []) == [(3, 1), (1, 3)]
    both = cell_frame(cells() + cells("cifar10"))
    deviations = {"mnist": [], "cifar10": []}
    assert shapes(figures.figure2, both, deviations) == [(2, 2), (1, 4)]
    assert shapes(figures.figure1, [examples()]) == [(4, 5), (2, 10)]
    top, bottom = np.reshape(figures.figure1([examples()], one).axes, (2, 2, 5))[1]
    assert [ax.get_xlabel() for ax in bottom] == ["6", "7", "8", "", "0"]
    assert_allclose(
        top[0].images[0].get_array(), examples().dataset.x_test[5], atol=1e-6
    )


def examples(**changes):
    """Classes 0 to 9 without 8; 1 is not fooled, 4 is wrong from the start."""
    rng = np.random.default_rng(3)
    x = rng.uniform(size=(20, 8, 8, 3)).astype("float32")
    y = np.arange(20) % 10
    indices = np.array([10, 1, 12, 3, 4, 5, 6, 17, 9])
    values = dict(
        dataset=Dataset("cifar10", x, y, x, y, (*"012345678", "automobile")),
        indices=indices,
        before=np.array([0, 1, 2, 3, 2, 5, 6, 7, 9]),
        x_adv=x[indices] + rng.choice([-0.5, 0.5], size=(9, 8, 8, 3)),
        after=np.array([9, 1, 3, 4, 5, 6, 7, 8, 0]),
        attack=Attack("BIM", 0.02, 0.0025, 8),
        deviations=["epochs=1"],
    )
    return Examples(**(values | changes))


def test_figure1_shows_originals_adversarial_images_and_predictions():
    first = examples()
    assert first.shortfalls == [
        "no test image of 8",
        "1 is not fooled",
        "4 is misclassified without attack",
    ]
    figure = figures.figure1([first, examples(deviations=())])
    titles = [part.get_suptitle().split("\n") for part in figure.subfigs]
    assert titles[0] == [
        "CIFAR-10, BIM on a single classifier (ε = 0.02, α = 0.0025, n = 8)",
        "differs from the paper: epochs=1",
        "; ".join(first.shortfalls),
    ]
    assert len(titles[1]) == 2
    top, bottom = np.reshape(figure.subfigs[0].axes, (2, 10))
    assert [ax.get_xlabel() for ax in bottom] == [
        *("automobile", "1", "3", "4", "5", "6", "7", "8", "", "0")
    ]
    drawn = [i for i in range(10) if i != 8]
    for line, images in (
        (top, first.dataset.x_test[first.indices]),
        (bottom, np.clip(first.x_adv, 0, 1)),
    ):
        assert not line[8].images
        shown = np.stack([line[i].images[0].get_array() for i in drawn])
        assert_allclose(shown, images, atol=1e-6)
        assert line[0].images[0].get_clim() == (0, 1)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("name", ["figure1", "figure2", "anomaly"])
def test_nothing_overlaps_or_is_too_small(name, style):
    if name == "figure1":
        figure = figures.figure1([examples(), examples()], style)
    elif name == "anomaly":
        frame = anomaly_frame(points())
        figure = figures.anomaly_figure(frame, ["epochs=1"] * 20, style)
    else:
        frame = cell_frame(cells() + cells("cifar10"))
        deviations = {"mnist": ["epochs=1"] * 9, "cifar10": []}
        figure = figures.figure2(frame, deviations, style)
    assert figure.get_figwidth() == style.width or not style.in_print
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_text()]
    boxes = [t.get_window_extent() for t in texts if t.get_visible()]
    assert min(t.get_fontsize() for t in texts) >= 6
    notes = [t for t in texts if "differs from the paper" in t.get_text()]
    assert bool(notes) != style.in_print  # there they are in the caption
    page = figure.bbox
    for i, box in enumerate(boxes):
        assert page.x0 <= box.x0 < box.x1 <= page.x1, texts[i]
        assert page.y0 <= box.y0 < box.y1 <= page.y1, texts[i]
        for other in boxes[:i]:
            assert not box.overlaps(other), (box, other)


@pytest.mark.parametrize(("name", "width"), [("figure2", 3.5), ("anomaly", 7)])
def test_files_have_fonts_and_no_dates_and_are_the_same_again(tmp_path, name, width):
    written = []
    for directory in ("a", "b"):
        if name == "figure2":
            frame = cell_frame(cells(methods=["bagging"]))
            figure = figures.figure2(frame, {"mnist": []})
        else:
            figure = figures.anomaly_figure(anomaly_frame(points()), [])
        paths = save_figure(figure, "x", out_dir=tmp_path / directory, name="f")
        assert sorted((tmp_path / directory).iterdir()) == sorted(paths)
        written.append([path.read_bytes() for path in paths])
    assert [path.name for path in paths] == ["f.png", "f.pdf", "f_caption.tex"]
    assert written[0] == written[1]
    with Image.open(paths[0]) as image:
        assert image.size[0] == width * 300
        assert_allclose(image.info["dpi"], 300, atol=0.1)
    pdf = written[0][1]
    assert b"/FontFile2" in pdf
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    assert b"/Subtype /Image" not in pdf
