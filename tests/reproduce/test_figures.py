"""The scripts that draw Figures 1 and 2."""

import re
from pathlib import Path

import numpy as np
import pytest
from absl import flags

import figure1
import figure2
from advens.strauss2017 import columns, rows
from advens.strauss2017.cells import Cell
from advens.strauss2017.reporting import figure_files, figures
from advens.strauss2017.reporting.figure_style import STYLES
from advens.strauss2017.reporting.tables import write_table


def write(dataset, *, out_dir=Path("results"), deviations=()):
    cells = [
        Cell(dataset, attack, row, column.name, np.arange(50)[None] < 20)
        for attack in ("FGSM", "BIM")
        for row in rows.TABLE2_ROWS
        for column in columns.TABLE2
    ]
    record = {
        "differs_from_the_paper": list(deviations),
        "seeds": {"run": 0, "members": [1, 2]},
        "attacks": [],
    }
    name = f"table2_{dataset}"
    write_table(cells, record, y_test=[], out_dir=out_dir, name=name)


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
    call, monkeypatch, capsys, stored, arguments, drawn
):
    for dataset in stored.split():
        write(dataset, deviations=[f"in={dataset}"])
    seen = []
    monkeypatch.setattr(figures, "figure2", lambda *given: seen.append(given))
    monkeypatch.setattr(
        figure_files,
        "save_figure",
        lambda figure, caption, *, out_dir, name, **_: [out_dir / name],
    )
    call(figure2.figure2, *arguments)
    [(frame, deviations, style)] = seen
    assert style == STYLES["screen"]
    assert list(frame["dataset"].unique()) == drawn.split()
    assert deviations == {name: [f"in={name}"] for name in drawn.split()}
    assert frame["accuracy"].notna().all()
    assert capsys.readouterr().out == "wrote figures/figure2\n"


def test_figure2_writes(call, capsys):
    write("mnist", out_dir=Path("r"))
    call(figure2.figure2, "--results_dir=r", "--figures_dir=f")
    paths = [Path("f") / f"figure2{s}" for s in (".png", ".pdf", "_caption.tex")]
    assert sorted(Path("f").iterdir()) == sorted(paths)
    assert capsys.readouterr().out == "".join(f"wrote {path}\n" for path in paths)


def test_figure2_in_a_paper(call):
    write("digits")
    call(figure2.figure2, "--format=svg,svg,pdf", "--style=one_column")
    names = sorted(path.name for path in Path("figures").iterdir())
    assert names == ["figure2.pdf", "figure2.svg", "figure2_caption.tex"]
    # Points of 1/72 inch.
    assert b"/MediaBox [ 0 0 234 " in Path("figures/figure2.pdf").read_bytes()
    first = Path("figures/figure2.svg").read_bytes()
    call(figure2.figure2, "--format=svg", "--style=one_column")
    assert Path("figures/figure2.svg").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format=pdf,eps"], "must be some of pdf, png, pgf, svg"),
        (["--format="], "must be some of pdf, png, pgf, svg"),
        (["--style=poster"], "one of <screen|one_column|two_columns>"),
        (["--format=pgf"], "pgf must be with --style=one_column"),
    ],
)
def test_bad_formats_and_styles_are_refused(call, arguments, message):
    with pytest.raises(flags.Error, match=re.escape(message)):
        call(figure2.figure2, *arguments)


def test_without_latex_no_pgf_is_begun(call, monkeypatch):
    write("digits")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="pgf needs pdflatex on this machine.*'pdfl"):
        call(figure2.figure2, "--format=pgf", "--style=two_columns")
    assert not list(Path("figures").iterdir())


@pytest.mark.parametrize(
    ("arguments", "missing", "command"),
    [
        ([], "table2_digits_cells.csv", "--dataset=digits"),
        (["--datasets=cifar10"], "table2_cifar10_cells.csv", "--dataset=cifar10"),
    ],
)
def test_figure2_says_how_to_make_what_is_missing(call, arguments, missing, command):
    with pytest.raises(FileNotFoundError) as error:
        call(figure2.figure2, "--results_dir=r", *arguments)
    assert str(error.value) == (
        f"r/{missing} is missing. Make it by: "
        f"python reproduce/table2.py {command} --out_dir=r"
    )


def test_unknown_data_set_is_refused(call):
    with pytest.raises(ValueError, match="`name` must be one of .*cifar10"):
        call(figure1.figure1, "--datasets=svhn,mnist")


def test_figure1_draws_and_leaves_the_flags_alone(call, directory, monkeypatch, capsys):
    seen = []
    draw = figures.figure1
    monkeypatch.setattr(
        figures, "figure1", lambda given, style: seen.extend(given) or draw(given)
    )
    values = []

    def figure1_and_flags():
        figure1.figure1()
        values.append((flags.FLAGS.dataset, flags.FLAGS.out_dir))

    reduced = ["--epochs=1", "--train_images=128", "--test_images=20"]
    call(figure1_and_flags, *reduced, "--datasets=digits,digits", "--dataset=mnist")
    assert values == [("mnist", "results")]
    [examples] = seen
    assert examples.dataset.name == "digits"
    printed = capsys.readouterr().out.splitlines()
    shortfalls = [f"digits: {shortfall}" for shortfall in examples.shortfalls]
    assert printed == [
        *shortfalls,
        "wrote figures/figure1.png",
        "wrote figures/figure1.pdf",
        "wrote figures/figure1_caption.tex",
    ]
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["advens-work", "figures"]
    files = sorted(path.name for path in Path("figures").iterdir())
    assert files == ["figure1.pdf", "figure1.png", "figure1_caption.tex"]
    caption = Path("figures/figure1_caption.tex").read_text()
    assert caption.startswith(r"\caption{Of each class the first test image")
    assert "Digits: 20 test images, run seed 0, reading printed, BIM (" in caption
    assert "FGSM" not in caption
    assert r"epochs=1, train\_images=128 of" in caption
    for shortfall in examples.shortfalls:
        assert shortfall in caption
