"""Tables and captions as LaTeX, and a document that includes them."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from advens.strauss2017 import columns, constants
from advens.strauss2017.cells import Cell
from advens.strauss2017.reporting import captions, figures, latex_tables, tables
from advens.strauss2017.reporting.figure_files import check_latex, save_figure
from advens.strauss2017.reporting.figure_style import STYLES
from advens.strauss2017.reporting.latex import escaped
from advens.strauss2017.reporting.results import StoredTable, read_stored

RECORD = {
    "differs_from_the_paper": ["num_members=2"],
    "seeds": {"run": 5, "members": [1, 2]},
    "attacks": [
        {"name": "FGSM", "eps": 0.3, "step_size": 0.3, "num_steps": 1, "box": True},
        {"name": "BIM", "eps": 0.2, "step_size": 0.025, "num_steps": 8, "box": False},
    ],
    "flags": {"num_singles": 3},
    "lost_classes": {"bagging": [0, 1]},
}


def table2_cells(dataset="mnist"):
    names = ("no_attack_single", "grad2_ensemble", "grad1_single_exact")
    counts = iter(range(1, 100))
    return [
        Cell(dataset, attack, row, name, np.arange(100)[None] < next(counts))
        for attack in ("FGSM", "BIM")
        for row in ("bagging", "gauss_noise")
        for name in names
    ]


def table4_cells():
    names = [column.name for column in columns.TABLE4 if column.place is not None]
    return [
        Cell("mnist", "none", row, name, np.arange(100)[None] < 10 * i)
        for i, row in enumerate(constants.TABLE4["mnist"], 1)
        for name in names
    ]


def write(cells, table, dataset, directory):
    """Write a table and its LaTeX; return the `tabular` and the caption."""
    name = f"{table}_{dataset}"
    tables.write_table(cells, RECORD, y_test=[], out_dir=directory, name=name)
    paths = latex_tables.write_latex(directory, table, dataset)
    assert [path.name for path in paths] == [f"{name}.tex", f"{name}_caption.tex"]
    return [path.read_text() for path in paths]


def body(tabular):
    """Return the entries of each line below the header."""
    lines = tabular.split("\\midrule\n", 1)[1].splitlines()
    return [re.split(" *& *", x.removesuffix(r" \\")) for x in lines if "&" in x]


def test_table2_has_the_papers_values_below_and_a_rule_between_attacks(tmp_path):
    tabular, caption = write(table2_cells(), "table2", "mnist", tmp_path)
    assert tabular.startswith("\\begin{tabular}{@{}lllll@{}}\n\\toprule\n")
    assert tabular.endswith("\\bottomrule\n\\end{tabular}\n")
    assert tabular.count("\\midrule") == 2
    assert r"{@{}l@{}}Grad.\ 1\\single\\exact\end{tabular} \\" in tabular
    assert body(tabular) == [
        ["FGSM", "Bagging", ".0100", ".0200", ".0300"],
        ["", "", "(.9900)", "(.5716)", ""],
        ["", "Gauss Noise", ".0400", ".0500", ".0600"],
        ["", "", "(.9898)", "(.7043)", ""],
        ["BIM", "Bagging", ".0700", ".0800", ".0900"],
        ["", "", "(.9900)", "(.9233)", ""],
        ["", "Gauss Noise", ".1000", ".1100", ".1200"],
        ["", "", "(.9898)", "(.9768)", ""],
    ]
    for part in (
        r"\caption{Accuracies in the layout of Table 2 of Strauss et al. (2017). ",
        "MNIST: 100 test images, ensembles of 2 members, run seed 5, reading printed, "
        r"FGSM ($\varepsilon$ = 0.3, clipped to [0, 1]), "
        r"BIM ($\varepsilon$ = 0.2, $\alpha$ = 0.025, n = 8); "
        r"settings that differ from the paper: num\_members=2. ",
        "In brackets: the paper's values.",
        "Grad.~1 single exact: Grad.~1 single by exact gradients",
        "Bagging: 1 of 2 networks recognise some class less often",
    ):
        assert part in caption


def test_table4_has_the_marks_of_the_terminal(tmp_path):
    tabular, caption = write(table4_cells(), "table4", "mnist", tmp_path)
    lines = body(tabular)
    # The third method is the best that stands alone, the last the best of all.
    assert lines[4] == [r"Def.\ Dist.", *[".3000$^{+}$"] * 3]
    assert lines[8] == [r"Bagging + Def.\ Dist.", *[".5000$^{*}$"] * 3]
    assert lines[1] == ["", "(.9927$^{+*}$)", "(.5716$^{+}$)", "(.9233$^{+}$)"]
    assert "Methods without an ensemble: the mean of 3 networks." in caption
    assert "+: the best of the methods alone; *: the best of all." in caption


def test_a_table_of_other_data_has_no_brackets(tmp_path):
    tabular, caption = write(table2_cells("my_data"), "table2", "my_data", tmp_path)
    assert len(body(tabular)) == 4
    assert r"my\_data: 100 test images" in caption
    assert "bracket" not in caption


def test_what_figure2_does_not_show_is_not_in_its_caption(tmp_path):
    frame = tables.cell_frame(table2_cells())
    caption = captions.figure2_caption({"mnist": StoredTable(frame, RECORD)})
    assert "Circles: the paper's values. Crosses: by exact gradients" in caption
    frame = tables.cell_frame([c for c in table2_cells("a") if "exact" not in c.column])
    caption = captions.figure2_caption({"a": StoredTable(frame, RECORD)})
    assert "Circles" not in caption
    assert "Crosses" not in caption


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="table4_mnist_cells.csv is missing"):
        latex_tables.write_latex(tmp_path, "table4", "mnist")


SPECIAL = r"\{}$&#_%~^<>"


def test_special_characters_are_escaped():
    assert escaped("95 % of a_b & ε") == r"95 \% of a\_b \& $\varepsilon$"
    for character in SPECIAL:
        assert escaped(character).startswith("\\")
        assert len(escaped(character)) > 1


def test_a_paper_with_all_of_them_compiles(tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("there is no pdflatex")
    try:
        check_latex()
    except RuntimeError as error:
        pytest.skip(str(error))
    cells = table2_cells("my_data")
    write(cells, "table2", "my_data", tmp_path)
    write(table4_cells(), "table4", "mnist", tmp_path)
    stored = {"my_data": read_stored(tmp_path, "table2", "my_data")}
    style = STYLES["one_column"]
    figure = figures.figure2(stored["my_data"].cells, {"my_data": []}, style)
    save_figure(
        figure,
        captions.figure2_caption(stored),
        out_dir=tmp_path,
        name="figure2",
        formats=("pgf", "pdf"),
        style=style,
    )
    pgf = (tmp_path / "figure2.pgf").read_text()
    assert r"\pgfqpoint{3.250000in}{" in pgf
    assert r"my\_data, FGSM" in pgf
    assert figure.axes[0].get_title() == "my_data, FGSM"
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx,pgf}\begin{document}"
        r"\begin{table}\input{table2_my_data}\input{table2_my_data_caption}\end{table}"
        r"\begin{table}\input{table4_mnist}\input{table4_mnist_caption}\end{table}"
        r"\begin{figure}\input{figure2.pgf}\input{figure2_caption}\end{figure}"
        r"\begin{figure}\includegraphics{figure2.pdf}\end{figure}"
        rf"{escaped(SPECIAL)}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert (tmp_path / "paper.pdf").exists()
