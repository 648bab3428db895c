import itertools
from typing import get_args

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from advens import (
    anomaly,
    experiments,
    figures,
    paper,
    store,
    tables,
    training,
)
from advens.attacks import Attack, bim, paper_attacks
from advens.datasets import Dataset, load
from advens.examples import Examples, choose
from advens.gradients import Labels, member_gradient
from advens.recipes import Settings
from advens.tables import Cell
from reproduce import figure1, figure2, shared_flags, table2, table4  # noqa: F401

ATTACKS = ("FGSM", "BIM")


def cells(dataset="mnist", rows=tuple(paper.METHODS), columns=tables.TABLE2_COLUMNS):
    """Every cell has an accuracy of its own, of 500 images."""
    rng = np.random.default_rng(7)
    counts = iter(rng.permutation(501))
    return [
        Cell(dataset, attack, row, column, np.arange(500)[None] < next(counts))
        for attack in ATTACKS
        for row in rows
        for column in columns
    ]


def panels(figure):
    return {ax.get_title().split("\n")[0]: ax for ax in figure.axes}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def call(function, *arguments):
    with flagsaver.flagsaver():
        shared_flags.FLAGS(["script", *arguments])
        function()


def test_bars_whiskers_and_markers_are_the_cells():
    # In another order than they are drawn in.
    frame = tables.tidy(cells()[::-1] + cells("cifar10", rows=["bagging", "rand_ini"]))
    figure = figures.figure2(frame, {"mnist": [], "cifar10": []})
    found = panels(figure)
    assert list(found) == [
        "MNIST, FGSM",
        "MNIST, BIM",
        "CIFAR-10, FGSM",
        "CIFAR-10, BIM",
    ]
    for title, ax in found.items():
        dataset = title.split(",")[0].replace("-", "").lower()
        rows = list(paper.METHODS) if dataset == "mnist" else ["rand_ini", "bagging"]
        methods = [paper.METHODS[row] for row in rows]
        labels = [text.get_text() for text in ax.get_xticklabels()]
        assert [label.replace("\n", " ") for label in labels] == methods
        attack = title[-4:].strip(", ")
        panel = frame[(frame["dataset"] == dataset) & (frame["attack"] == attack)]
        assert len(panel) == len(rows) * 10
        bars = [c for c in ax.containers if hasattr(c, "patches")]
        assert [b.get_label() for b in bars] == list(figures.SERIES.values())
        right = -np.inf
        markers = [line for line in ax.lines if line.get_marker() == "o"]
        assert len(markers) == 5
        crosses = [line for line in ax.lines if line.get_marker() == "x"]
        assert len(crosses) == 3
        exact = panel.pivot(index="method", columns="column", values="accuracy")
        for cross, column in zip(
            crosses, ("grad1_single", "grad1_ensemble", "grad2_ensemble"), strict=True
        ):
            assert_allclose(cross.get_ydata(), exact.loc[methods, f"{column}_exact"])
        for column, bar, whisker in zip(
            figures.SERIES, bars, ax.collections, strict=True
        ):
            ours = panel[panel["column"] == column].set_index("method").loc[methods]
            heights = [patch.get_height() for patch in bar]
            assert_allclose(heights, ours["accuracy"], rtol=1e-12)
            lows, highs = np.array(whisker.get_segments())[..., 1].T
            assert_allclose(lows, ours["wilson_low"], atol=1e-12)
            assert_allclose(highs, ours["wilson_high"], atol=1e-12)
            middles = [patch.get_x() + patch.get_width() / 2 for patch in bar]
            assert_allclose(np.array(whisker.get_segments())[:, 0, 0], middles)
            assert_allclose(np.round(middles), range(len(rows)))
            assert middles[0] > right
            right = middles[0]
            if column in paper.TABLE2_COLUMNS:
                marker = markers.pop(0)
                i = paper.TABLE2_COLUMNS.index(column)
                values = [paper.TABLE2[dataset][attack, row][i] for row in rows]
                assert_allclose(marker.get_ydata(), values)
                assert_allclose(marker.get_xdata(), middles)
                assert marker.get_markerfacecolor() == "none"
    assert legend(figure) == [
        *figures.SERIES.values(),
        *("the paper's value", "exact gradients", "Wilson 95 % interval"),
    ]


def points(dataset="mnist"):
    """Return a point of the anomaly for each column, labels, box and step."""
    counts = iter(np.random.default_rng(8).permutation(501))
    found = []
    for column in anomaly.COLUMNS:
        for labels in ("repredicted", "true", "predicted"):
            for box, n in itertools.product((True, False), range(1, 13)):
                correct = np.arange(500)[None] < next(counts)
                zero = np.zeros_like(correct)
                cell = Cell(dataset, "BIM", "bagging", column, correct, zero)
                attack = Attack("BIM", 0.2, 0.025, n, box)
                found.append(anomaly.Point(column, labels, attack, cell))
    return found


def test_anomaly_has_a_panel_a_reading_and_a_line_a_gradient_and_box():
    frame = anomaly.tidy(points())
    figure = figures.anomaly(frame, ["test_images=1000 of 10000"])
    assert figure.get_suptitle().split("\n") == [
        "MNIST, Bagging, BIM (ε = 0.2, α = 0.025)",
        "differs from the paper: test_images=1000 of 10000",
    ]
    assert list(panels(figure)) == [
        *("true labels", "labels predicted once", "labels predicted at every step")
    ]
    names = {
        "grad1_single": "Grad. 1 Single",
        "grad1_ensemble": "Grad. 1 Ensemble",
        "grad2_ensemble": "Grad. 2 Ensemble",
        "ensemble_gradient": "Ensemble Gradient",
    }
    for labels, ax in zip(get_args(Labels), figure.axes, strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        assert len(lines) == len(ax.lines) == 8
        for column, box in itertools.product(names, (False, True)):
            line = lines[names[column] + ", box" * box]
            assert line.get_linestyle() == ("--" if box else "-")
            ours = frame[
                (frame["labels"] == labels)
                & (frame["column"] == column)
                & (frame["box"] == box)
            ]
            assert_allclose(line.get_xdata(), range(1, 13))
            assert_allclose(line.get_ydata(), ours["accuracy"], rtol=1e-12)
    assert len({line.get_color() for line in ax.lines}) == 4
    assert len({line.get_marker() for line in ax.lines}) == 4
    assert legend(figure) == [n + box for n in names.values() for box in ("", ", box")]


def test_the_table_of_the_anomaly_is_that_of_one_step_and_has_the_paper_beneath():
    frame = anomaly.tidy(points()).set_index(["column", "labels", "box", "num_steps"])
    for dataset, theirs in (("mnist", ["0.1110", "0.7068", "0.9233"]), ("digits", [])):
        table = anomaly.render(points(dataset), num_steps=8, title="title")
        rows = [
            list(row) for row in zip(*(c.cells for c in table.columns), strict=True)
        ]
        if theirs:
            assert rows.pop() == ["paper", "", *theirs, ""]
        keys = itertools.product(get_args(Labels), (False, True))
        for row, (labels, box) in zip(rows, keys, strict=True):
            accuracies = [
                f"{frame['accuracy'][column, labels, box, 8]:.4f}"
                for column in anomaly.COLUMNS
            ]
            assert row == [labels, "yes" if box else "no", *accuracies]


def test_only_the_repredicted_series_is_hatched():
    figure = figures.figure2(tables.tidy(cells()), {"mnist": []})
    bars = [c for c in figure.axes[0].containers if hasattr(c, "patches")]
    hatched = [b.get_label() for b in bars if b.patches[0].get_hatch()]
    assert hatched == ["Grad. 2 Ensemble, labels re-predicted"]


def test_series_differ_in_grey():
    figure = figures.figure2(tables.tidy(cells()), {"mnist": []})
    colors = [
        to_rgb(c.patches[0].get_facecolor())
        for c in figure.axes[0].containers
        if hasattr(c, "patches")
    ]
    # As Pillow, and most printers, weigh them; 1/8 of the way from black to white.
    grey = np.sort(colors @ np.array([0.299, 0.587, 0.114]))
    assert len(grey) == 6
    assert np.diff(grey).min() > 1 / 8


def test_what_is_missing_is_left_out_and_named():
    frame = tables.tidy(cells("digits", ["bagging"], ["grad1_single"]))
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


@pytest.mark.parametrize("name", ["figure1", "figure2", "anomaly"])
def test_nothing_overlaps_or_is_too_small(name):
    if name == "figure1":
        figure = figures.figure1([examples(), examples()])
    elif name == "anomaly":
        figure = figures.anomaly(anomaly.tidy(points()), ["epochs=1"] * 20)
    else:
        frame = tables.tidy(cells() + cells("cifar10"))
        figure = figures.figure2(frame, {"mnist": ["epochs=1"] * 9, "cifar10": []})
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_text()]
    boxes = [t.get_window_extent() for t in texts if t.get_visible()]
    assert min(t.get_fontsize() for t in texts) >= 6
    page = figure.bbox
    for i, box in enumerate(boxes):
        assert page.x0 <= box.x0 < box.x1 <= page.x1, texts[i]
        assert page.y0 <= box.y0 < box.y1 <= page.y1, texts[i]
        for other in boxes[:i]:
            assert not box.overlaps(other), (box, other)


def test_choose_takes_the_first_that_is_right_and_then_fooled():
    y = np.array([1, 0, 0, 0, 1, 1, 3, 3, 4, 4, 5, 5])
    right = np.array([1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0], bool)
    attacked = np.array([1, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1], bool)
    # Class 3 is never fooled when right, 4 and 5 are never right.
    assert_array_equal(choose(y, right, attacked), [3, 4, 7, 9, 10])


def examples(**changes):
    """Classes 0 to 9 but 8; 1 is not fooled, 4 is wrong from the start."""
    rng = np.random.default_rng(3)
    x = rng.uniform(size=(20, 8, 8, 3)).astype("float32")
    y = np.arange(20) % 10
    indices = np.array([10, 1, 12, 3, 4, 5, 6, 17, 9])
    names = load("digits").class_names[:-1] + ("automobile",)
    values = dict(
        dataset=Dataset("cifar10", x, y, x, y, names),
        indices=indices,
        before=np.array([0, 1, 2, 3, 2, 5, 6, 7, 9]),
        x_adv=x[indices] + rng.choice([-0.5, 0.5], size=(9, 8, 8, 3)),
        after=np.array([9, 1, 3, 4, 5, 6, 7, 8, 0]),
        attack=Attack("BIM", 0.02, 0.0025, 8),
        deviations=["epochs=1"],
    )
    return Examples(**(values | changes))


def test_figure1_shows_originals_attacked_images_and_predictions():
    example = examples()
    assert example.shortfalls == [
        *("no test image of 8", "1 is not fooled"),
        "4 is misclassified without attack",
    ]
    figure = figures.figure1([example, examples(deviations=())])
    titles = [part.get_suptitle().split("\n") for part in figure.subfigs]
    assert titles[0] == [
        "CIFAR-10, BIM on a single classifier (ε = 0.02, α = 0.0025, n = 8)",
        "differs from the paper: epochs=1",
        "; ".join(example.shortfalls),
    ]
    assert len(titles[1]) == 2
    top, bottom = np.reshape(figure.subfigs[0].axes, (2, 10))
    assert [ax.get_xlabel() for ax in bottom] == [
        *("automobile", "1", "3", "4", "5", "6", "7", "8", "", "0")
    ]
    drawn = [i for i in range(10) if i != 8]
    for row, images in (
        (top, example.dataset.x_test[example.indices]),
        (bottom, np.clip(example.x_adv, 0, 1)),
    ):
        assert not row[8].images
        shown = np.stack([row[i].images[0].get_array() for i in drawn])
        assert_allclose(shown, images, atol=1e-6)
        assert row[0].images[0].get_clim() == (0, 1)


def test_save_writes_two_files_with_fonts_and_without_dates(tmp_path):
    frame = tables.tidy(cells(rows=["bagging"]))
    written = []
    for name in ("a", "b"):
        figure = figures.figure2(frame, {"mnist": []})
        paths = figures.save(figure, out_dir=tmp_path / name, name="f")
        assert sorted((tmp_path / name).iterdir()) == sorted(paths)
        written.append([path.read_bytes() for path in paths])
    assert [path.name for path in paths] == ["f.png", "f.pdf"]
    assert written[0] == written[1]
    with Image.open(paths[0]) as image:
        assert image.size[0] == 3.5 * 300
        assert_allclose(image.info["dpi"], 300, atol=0.1)
    pdf = written[0][1]
    assert b"/FontFile2" in pdf
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    assert b"/Subtype /Image" not in pdf


def write(dataset, *, out_dir, deviations=()):
    record = {"differs_from_the_paper": list(deviations)}
    name = f"table2_{dataset}"
    tables.write(cells(dataset), record, y_test=[], out_dir=out_dir, name=name)


@pytest.mark.parametrize(
    ("stored", "arguments", "drawn"),
    [
        ("digits mnist cifar10", [], "mnist cifar10"),
        ("digits cifar10", [], "cifar10"),
        ("digits", [], "digits"),
        ("digits mnist", ["--datasets=digits"], "digits"),
        ("digits mnist", ["--datasets=mnist,digits,mnist"], "mnist digits"),
    ],
)
def test_figure2_draws_the_tables_that_are_there(
    tmp_path, monkeypatch, capsys, stored, arguments, drawn
):
    monkeypatch.chdir(tmp_path)
    for dataset in stored.split():
        write(dataset, out_dir=tmp_path / "results", deviations=[f"in={dataset}"])
    seen = []
    monkeypatch.setattr(figures, "figure2", lambda *found: seen.append(found))
    monkeypatch.setattr(figures, "save", lambda figure, out_dir, name: [out_dir / name])
    call(figure2.figure2, *arguments)
    [(frame, deviations)] = seen
    assert list(frame["dataset"].unique()) == drawn.split()
    assert deviations == {name: [f"in={name}"] for name in drawn.split()}
    assert frame["accuracy"].notna().all()
    assert capsys.readouterr().out == "wrote figures/figure2\n"


def test_figure2_writes(tmp_path, capsys):
    write("mnist", out_dir=tmp_path / "r")
    directories = f"--results_dir={tmp_path}/r", f"--figures_dir={tmp_path}/f"
    call(figure2.figure2, *directories)
    paths = [tmp_path / "f" / f"figure2.{suffix}" for suffix in ("png", "pdf")]
    assert sorted((tmp_path / "f").iterdir()) == sorted(paths)
    assert capsys.readouterr().out == "".join(f"wrote {path}\n" for path in paths)


@pytest.mark.parametrize(
    ("arguments", "missing", "command"),
    [
        ([], "table2_digits_cells.csv", "--dataset=digits"),
        (["--datasets=cifar10"], "table2_cifar10_cells.csv", "--dataset=cifar10"),
    ],
)
def test_figure2_says_how_to_make_what_is_missing(
    tmp_path, arguments, missing, command
):
    with pytest.raises(FileNotFoundError) as error:
        call(figure2.figure2, f"--results_dir={tmp_path}", *arguments)
    assert str(error.value) == (
        f"{tmp_path}/{missing} is missing. Make it by: "
        f"python reproduce/table2.py {command} --out_dir={tmp_path}"
    )


@pytest.mark.parametrize("text", [None, "{"])
def test_figure2_names_a_damaged_table(tmp_path, text):
    write("mnist", out_dir=tmp_path)
    record = tmp_path / "table2_mnist.json"
    record.write_text(text) if text else record.unlink()
    with pytest.raises(
        ValueError, match="table2_mnist.json cannot be read .* again by"
    ):
        call(figure2.figure2, f"--results_dir={tmp_path}")


def test_unknown_data_set_is_refused():
    with pytest.raises(
        flags.IllegalFlagValueError, match="some of digits,mnist,cifar10"
    ):
        call(figure1.figure1, "--datasets=mnist,svhn")


def test_figure1_chooses_the_first_right_and_then_fooled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seen = []
    draw = figures.figure1
    monkeypatch.setattr(figures, "figure1", lambda e: seen.extend(e) or draw(e))
    reduced = ["--epochs=2", "--train_images=700", "--test_images=40"]
    call(figure1.figure1, *reduced)
    [found] = seen
    printed = capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "advens-work",
        "figures",
    ]
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert files == ["figure1.pdf", "figure1.png"]
    # Once more, by hand: member 0 of Table 2's random initialisation.
    dataset = load("digits").subset(700, 40)
    run = experiments.Run(
        dataset=dataset,
        settings=Settings("digits", epochs=2),
        attacks=paper_attacks("digits"),
        store=store.Store(tmp_path / "advens-work"),
    )
    network = training.load_ensemble(run.members("rand_ini")[:1], run.store)
    x, y = dataset.x_test, dataset.y_test
    x_adv = bim(
        *(member_gradient(network, 0), x, y), eps=0.1, step_size=0.0125, num_steps=8
    ).x_adv
    before, after = (network.predict_on_batch(i).argmax(-1) for i in (x, x_adv))
    assert set(y) == set(range(10))
    num_fooled = 0
    for label, index in enumerate(found.indices):
        of_class = [i for i in range(40) if y[i] == label]
        fooled = [i for i in of_class if before[i] == label != after[i]]
        if fooled:
            assert index == fooled[0]
            num_fooled += 1
        else:
            assert any(line.split()[1] == str(label) for line in printed.splitlines())
    assert num_fooled >= 5
    assert_array_equal(found.before, before[found.indices])
    assert_array_equal(found.after, after[found.indices])
    assert_allclose(found.x_adv, np.array(x_adv)[found.indices], atol=0.03)
    assert abs(found.x_adv - x[found.indices]).max() <= 0.1 + 1e-6
    assert "train_images=700 of 1437" in found.deviations
