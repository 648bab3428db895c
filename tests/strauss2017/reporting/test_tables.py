import dataclasses
import io
import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rich.console import Console

from advens.strauss2017 import columns, constants
from advens.strauss2017.cells import Cell, unpack_cells
from advens.strauss2017.reporting import tables


def bits(*strings):
    return np.array([[c == "1" for c in s] for s in strings])


def table2_cells():
    zero = bits("0000", "0001")
    return [
        Cell("mnist", "FGSM", "bagging", "no_attack_single", bits("1111", "1110")),
        Cell("mnist", "FGSM", "bagging", "grad1_single", bits("1000", "1100"), zero),
        Cell("mnist", "BIM", "bagging", "no_attack_single", bits("1111", "1110")),
        Cell("mnist", "BIM", "bagging", "grad1_single", bits("0000", "0001")),
    ]


def table4_cells(dataset="mnist"):
    """Our numbers are the paper's, and so are the marks."""
    names = [column.name for column in columns.TABLE4 if column.place is not None]
    return [
        Cell(
            dataset,
            "none",
            row,
            column,
            np.arange(10_000)[None] < round(value * 10_000),
        )
        for row, values in constants.TABLE4[dataset].items()
        for column, value in zip(names, values, strict=True)
    ]


def write(cells, record=None, *, out_dir):
    y_test = np.arange(cells[0].correct.shape[1]) % 10
    return tables.write_table(
        cells, record or {}, y_test=y_test, out_dir=out_dir, name="t"
    )


def printed(table):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_cell_frame():
    frame = tables.cell_frame(table2_cells())
    assert_allclose(frame["accuracy"], [7 / 8, 3 / 8, 7 / 8, 1 / 8], rtol=1e-12)
    assert_allclose(frame["lowest_member"], [0.75, 0.25, 0.75, 0], rtol=1e-12)
    assert_allclose(frame["highest_member"], [1, 0.5, 1, 0.25], rtol=1e-12)
    assert_allclose(frame["paper"], [0.9900, 0.4045, 0.9900, 0.1110], rtol=1e-12)
    assert_allclose(frame["difference"], frame["accuracy"] - frame["paper"], rtol=1e-9)
    assert_allclose(
        frame["zero_gradient_share"], [np.nan, 1 / 8, np.nan, np.nan], rtol=1e-12
    )
    assert set(frame["method"]) == {"Bagging"}
    assert set(frame["num_images"]) == {4}
    assert set(frame["num_members"]) == {2}
    # Wilson's interval for 3/8 * 4 = 1.5 right answers out of 4.
    p, n, z = 3 / 8, 4, 1.959964
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert_allclose(frame["wilson_low"][1], middle - half, rtol=1e-6)
    assert_allclose(frame["wilson_high"][1], middle + half, rtol=1e-6)


def test_paper_frame_has_the_papers_layout(tmp_path):
    paths = write(table2_cells(), {"seed": 3}, out_dir=tmp_path)
    text = (tmp_path / "t.csv").read_text().splitlines()
    assert text == [
        "attack,method,no_attack_single,grad1_single",
        "FGSM,Bagging,0.8750,0.3750",
        "BIM,Bagging,0.8750,0.1250",
    ]
    assert json.loads((tmp_path / "t.json").read_text()) == {"seed": 3}
    assert len(pd.read_csv(tmp_path / "t_cells.csv")) == 4
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    write(table4_cells(), out_dir=tmp_path / "new")
    text = (tmp_path / "new" / "t.csv").read_text().splitlines()
    assert text[:2] == ["method,no_attack,fgsm,bim", "Bagging,0.9927,0.5716,0.9233"]
    assert text[4].startswith("Bagging + Adv. Train.,0.9927,0.8703")
    assert len(text) == 6


def test_outcomes_file_holds_the_cells(tmp_path):
    cells = table2_cells()
    write(cells, out_dir=tmp_path)
    with np.load(tmp_path / "t_outcomes.npz") as arrays:
        again = unpack_cells(dict(arrays))
        assert_array_equal(arrays["y_test"], np.arange(4) % 10)
    pd.testing.assert_frame_equal(tables.cell_frame(again), tables.cell_frame(cells))


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_marks_are_those_that_the_paper_prints(dataset):
    text = printed(tables.terminal_table(table4_cells(dataset), title="T"))
    # The asterisks of Table 4, and its bold numbers: the best of the first three rows.
    starred = {
        "mnist": {"0.9927", "0.8703", "0.9840"},
        "cifar10": {"0.8415", "0.5010", "0.7166"},
    }[dataset]
    bold = {
        "mnist": {"0.9927", "0.5716", "0.9233"},
        "cifar10": {"0.8415", "0.3571", "0.7166"},
    }[dataset]
    words = text.replace("│", " ").split()
    assert {word.rstrip("+*") for word in words if word.endswith("*")} == starred
    plus = {word.rstrip("+*") for word in words if word[1:2] == "." and "+" in word}
    assert plus == bold


def test_table2_shows_the_paper_below():
    title = "Table 2 on mnist (3 of 10)"
    text = printed(tables.terminal_table(table2_cells(), title=title))
    assert title in text
    assert "0.3750" in text
    assert "0.4045" in text
    assert "*" not in text


def test_markdown_table():
    lines = tables.markdown_table(["a", "b"], [[1, "x"], [2, "y"]])
    assert lines == ["| a | b |", "| --- | --- |", "| 1 | x |", "| 2 | y |"]


def test_rows_that_lost_a_class_are_named():
    notes = tables.lost_class_notes({"bagging": [0, 2, 1], "mix_mod": [0, 0]})
    assert notes == [
        "Bagging: 2 of 3 networks recognise some class less often than guessing would "
        "(docs/protocol.md, point 26)."
    ]


def test_a_further_column_needs_one_entry(monkeypatch):
    """It appears in both CSV files and in the printed table."""
    column = dataclasses.replace(
        columns.BY_NAME["grad2_ensemble"], name="grad3_ensemble", place=None
    )
    monkeypatch.setitem(columns.BY_NAME, column.name, column)
    cells = table2_cells() + [
        Cell("mnist", attack, "bagging", column.name, bits("1110"))
        for attack in ("FGSM", "BIM")
    ]
    assert list(tables.paper_frame(cells)["grad3_ensemble"]) == [0.75, 0.75]
    assert list(tables.cell_frame(cells)["column"])[4:] == ["grad3_ensemble"] * 2
    text = printed(tables.terminal_table(cells, title="T"))
    assert "grad3" in text
    assert text.count("0.7500") == 2


def test_failed_write_leaves_the_old_files(tmp_path):
    write(table2_cells(), out_dir=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write(table4_cells(), {"x": object()}, out_dir=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
