import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl.testing import flagsaver

import claims
import script
from advens.strauss2017 import columns, constants
from advens.strauss2017.cells import Cell
from advens.strauss2017.paper_claims import CLAIMS
from advens.strauss2017.reporting.tables import write_table


def paper_cells(dataset, table):
    """Return a table as the paper has it."""
    if table == "table2":
        keys = list(constants.TABLE2[dataset])
    else:
        keys = [(None, row) for row in constants.TABLE4[dataset]]
    cells = []
    for attack, row in keys:
        for column in columns.TABLES[table]:
            address = dataset, column.attack or attack, row, column.name
            value = columns.paper_value(*address)
            if value is not None:
                right = np.arange(10_000)[None] < round(value * 10_000)
                cells.append(Cell(*address, right))
    return cells


def save(directory, dataset, cells, name="table2", *, differs=()):
    record = {
        "differs_from_the_paper": list(differs),
        "data": {"sha256": {"test": "a"}},
        "seeds": {"run": 3},
    }
    name = f"{name}_{dataset}"
    write_table(cells, record, y_test=[], out_dir=Path(directory), name=name)


def test_it_writes_and_prints(call, capsys):
    save("results", "cifar10", paper_cells("cifar10", "table2"))
    save("results", "mnist", paper_cells("mnist", "table2"), differs=["epochs=2"])
    save("results", "mnist", paper_cells("mnist", "table4"), "table4")
    call(claims.claims)
    printed = capsys.readouterr().out
    frame = pd.read_csv("results/claims.csv")
    assert list(frame.columns) == [
        *("key", "section", "dataset", "claim", "held", "reversed", "total"),
        *("largest_adjusted_p", "verdict", "reason"),
    ]
    for dataset in ("mnist", "cifar10"):
        count = sum(dataset in claim.datasets for claim in CLAIMS)
        assert sum(frame["dataset"] == dataset) == count
    by_key = frame.set_index(["dataset", "key"])
    row = by_key.loc["mnist", "clean_gain_below_1_point"]
    assert (row["held"], row["total"], row["verdict"]) == (4, 4, "reproduced")
    row = by_key.loc["cifar10", "bagging_beats_defenses_clean"]
    assert (row["held"], row["total"], row["verdict"]) == (0, 2, "undetermined")
    assert row["reason"].startswith("missing: no cell none/bagging/no_attack and none/")
    assert np.isnan(row["largest_adjusted_p"])
    page = Path("results/claims.md").read_text()
    images = "_mnist_outcomes.npz: reading printed, 10000 test images, run seed 3"
    assert f"- table2{images}; differs from the paper: epochs=2\n" in page
    assert "undetermined at this scale" in printed
    assert "wrote results/claims.csv" in printed


def test_tables_of_other_readings_are_judged_beside(call):
    save("results", "mnist", paper_cells("mnist", "table2"))
    others = [
        dataclasses.replace(cell, correct=np.zeros_like(cell.correct))
        for cell in paper_cells("mnist", "table2")
    ]
    save("results/printed", "mnist", others)
    call(claims.claims)
    frame = pd.read_csv("results/claims.csv").set_index("key")
    row = frame.loc["clean_level_mnist"]
    assert (row["verdict"], row["verdict_printed"]) == ("reproduced", "not reproduced")
    page = Path("results/claims.md").read_text()
    assert "| verdict | because | printed |" in page


def test_it_reads_and_writes_where_it_is_told(call):
    cell = Cell("digits", "BIM", "bagging", "bim", np.arange(20)[None] < 5)
    save("there", "digits", [cell])
    before = set(Path("there").iterdir())
    call(claims.claims, "--results_dir=there")
    written = {path.name for path in set(Path("there").iterdir()) - before}
    assert written == {"claims.csv", "claims.md"}
    assert not Path("results").exists()


def test_nothing_to_read_is_one_line(monkeypatch, capsys, directory):
    monkeypatch.setattr(sys, "argv", ["claims.py", "--results_dir=there"])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as error:
        script.main(claims.claims)
    assert error.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: there/table2_digits_outcomes.npz is missing")
    assert err.count("\n") == 1
    assert not list(directory.iterdir())
