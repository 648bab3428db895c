import io

import numpy as np
import pytest
from rich.console import Console

from advens.strauss2017.cells import Cell
from advens.strauss2017.claims import judge, judge_alternatives
from advens.strauss2017.paper_claims import Claim
from advens.strauss2017.reporting import ledger, tables

A, B = "BIM/bagging/bim", "BIM/adv_train/bim"


def cell(address, right, *, dataset="mnist"):
    correct = np.arange(10_000)[None] < right
    return Cell(dataset, *address.split("/"), correct)


def save(directory, dataset, cells, name="table2", *, differs=(), images="a"):
    record = {
        "differs_from_the_paper": list(differs),
        "data": {"sha256": {"test": images}},
        "seeds": {"run": 3},
    }
    tables.write_table(
        cells, record, y_test=[], out_dir=directory, name=f"{name}_{dataset}"
    )


def test_the_tables_that_are_there_are_read(tmp_path):
    save(tmp_path, "mnist", [cell(A, 5)], "table4", differs=["epochs=2", "seed=1"])
    save(tmp_path, "digits", [cell(A, 7, dataset="digits")])
    cells, notes = ledger.read_cells(tmp_path)
    assert [(c.dataset, c.correct.sum()) for c in cells] == [
        ("digits", 7),
        ("mnist", 5),
    ]
    assert notes == [
        "table2_digits_outcomes.npz: reading printed, 10000 test images, run seed 3; "
        "differs from the paper: no",
        "table4_mnist_outcomes.npz: reading printed, 10000 test images, run seed 3; "
        "differs from the paper: epochs=2, seed=1",
    ]


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        ledger.read_cells(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/table2_digits_outcomes.npz is missing, and")
    command = "python reproduce/table2.py --dataset=digits"
    assert message.endswith(f"Make it by: {command} --out_dir={tmp_path}")


@pytest.mark.parametrize("name", ["table2_mnist_outcomes.npz", "table2_mnist.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    save(tmp_path, "mnist", [cell(A, 5)])
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError) as error:
        ledger.read_cells(tmp_path)
    message = str(error.value)
    assert "table2_mnist_outcomes.npz or its .json cannot be read (" in message
    command = "python reproduce/table2.py --dataset=mnist --columns=all"
    assert message.endswith(f"Make them again by: {command} --out_dir={tmp_path}")


def test_tables_of_other_images_are_refused(tmp_path):
    save(tmp_path, "mnist", [cell(A, 5)])
    save(tmp_path, "mnist", [cell(B, 5)], "table4", images="b")
    message = "on mnist must be of the same test images. Received: SHA-256 a and b"
    with pytest.raises(ValueError, match=message):
        ledger.read_cells(tmp_path)


def test_page_and_files(tmp_path):
    cells = [cell(A, 600), cell(B, 500), cell("FGSM/bagging/fgsm", 900)]
    cells.append(cell("BIM/bagging/bim_repredicted", 600))
    frame = judge_alternatives(cells)
    paths = ledger.write_ledger(frame, ["a note"], out_dir=tmp_path)
    assert [path.name for path in paths] == ["claims.csv", "claims.md"]
    page = (tmp_path / "claims.md").read_text()
    assert page == ledger.ledger_page(frame, ["a note"])
    assert "\n- a note\n" in page
    assert "\n## mnist\n" in page
    [line] = [s for s in page.splitlines() if "| `bagging_beats_defenses_attac" in s]
    fields = [field.strip() for field in line.strip("|").split("|")]
    assert fields[3:6] == ["1/4", "1.6e-30", "undetermined"]
    assert fields[6].startswith("missing: no cell FGSM/adv_train/fgsm and 2 more")
    assert fields[7:] == ["undetermined"]
    assert (tmp_path / "claims.csv").read_text().startswith("key,section,dataset,claim")


def test_terminal():
    claim = Claim("key", "Section 0", "What it says.", ("mnist",), [f"{A} > {B}"])
    frame = judge([cell(A, 600), cell(B, 500)], claims=[claim])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(ledger.terminal_ledger(frame))
    text = console.export_text()
    for shown in ("mnist", "key", "What it says.", "1/1", "1.6e-30", "reproduced"):
        assert shown in text
