"""README.md and docs/results.md, as readme.py fills them."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl.testing import flagsaver

import readme
import script
from advens.strauss2017 import constants
from advens.strauss2017.atlas_choice import distances
from advens.strauss2017.cells import Cell
from advens.strauss2017.reporting.tables import write_table

ROOT = Path(readme.__file__).parents[1]
DECIMAL = re.compile(r"(?<![\w.])[+-]?\d*\.\d+")
MARKERS = "<!-- {0}: begin -->\n<!-- {0}: end -->\n"
MANIFEST = {
    "differs_from_the_paper": [],
    "hardware": {"processor": "P", "cores": 2, "devices": ["cpu:0"]},
    "seconds_per_stage": {"train bagging": 3725.4, "attack bagging": 61.6},
}


def write(count=100):
    cells = [
        Cell("mnist", attack, "bagging", column, np.arange(100)[None] < count)
        for attack in ("FGSM", "BIM")
        for column in ("no_attack_ensemble", "grad1_single")
    ]
    results = Path("results")
    write_table(cells, MANIFEST, y_test=[], out_dir=results, name="table2_mnist")


@pytest.fixture
def checkout(directory):
    Path("docs").mkdir()
    picture, results, pictures = map(MARKERS.format, ("picture", "results", "pictures"))
    Path("README.md").write_text(f"# A\n{picture}\n## B\n{results}Behind.\n")
    Path("docs/results.md").write_text(f"{results}Behind.\n{pictures}")
    write()
    return directory


def test_it_fills_the_pages_and_check_finds_what_is_out_of_date(call, checkout, capsys):
    call(readme.readme)
    written = {path: path.read_text() for path in checkout.rglob("*.md")}
    for text in written.values():
        assert "| Bagging | 1.0000 (.9927) |" in text
        assert "Behind.\n" in text
    assert "cell by cell" not in written[checkout / "README.md"]
    names = ("README.md", "docs/results.md", "results/differences.csv")
    assert capsys.readouterr().out == "".join(f"wrote {name}\n" for name in names)
    call(readme.readme, "--check")
    call(readme.readme)
    assert {path: path.read_text() for path in written} == written

    write(50)
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    with pytest.raises(ValueError) as error:
        call(readme.readme, "--check")
    assert str(error.value) == (
        f"Out of date: {', '.join(names)}. Update by: python reproduce/readme.py "
        "--out_dir=results"
    )
    assert {path: path.read_bytes() for path in before} == before


def test_a_page_that_is_out_of_date_is_exit_code_1(checkout, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["readme.py", "--check"])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as error:
        script.main(readme.readme)
    assert error.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: Out of date: README.md, docs/results.md")
    assert err.count("\n") == 1


def test_pictures_are_shown_once_they_are_there(call, checkout):
    call(readme.readme)
    assert "![" not in Path("README.md").read_text()
    Path("figures").mkdir()
    overviews = "overview_digits", "overview_mnist"
    for name in ("figure1", "figure2", "anomaly_mnist", *overviews):
        Path(f"figures/{name}.png").touch()
    call(readme.readme)
    text = Path("README.md").read_text()
    shown = re.findall(r"!\[.*\)", text)
    assert shown == ["![overview_mnist](figures/overview_mnist.png)"]
    assert text.index("![") < text.index("## B")
    assert re.findall(r"!\[.*\)", Path("docs/results.md").read_text()) == [
        "![figure1](../figures/figure1.png)",
        "![figure2](../figures/figure2.png)",
        "![anomaly_mnist](../figures/anomaly_mnist.png)",
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda: Path("README.md").unlink(),
            "README.md is missing. Start the script i",
        ),
        (
            lambda: Path("docs/results.md").write_text("# No markers"),
            "must have <!-- results: begin -->.*'# No ma",
        ),
        (
            lambda: Path("results/table2_mnist.json").write_text("{"),
            "again by: python reproduce/table2.py --dataset=mnist --columns=all --out",
        ),
    ],
)
def test_what_cannot_be_used_is_named(call, checkout, damage, message):
    damage()
    with pytest.raises((OSError, ValueError), match=message):
        call(readme.readme)


def test_results_must_be_there(call, checkout):
    with pytest.raises(FileNotFoundError, match="an existing directory. Received: 'no"):
        call(readme.readme, "--out_dir=no")


def test_the_committed_pages_are_up_to_date(call):
    """What was run since, such as the README's first command, does not count."""
    command = ["git", "ls-files", "README.md", "docs", "results", "figures"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, name)
    call(readme.readme, "--check")


def generated(page, name):
    text = (ROOT / page).read_text("utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    return text[text.index(begin) : text.index(end)]


def shown(value, sign=""):
    return f"{value:{sign}.4f}".replace("0.", ".", 1)


def stored_numbers():
    """Return all numbers in results/ and in the paper, as they would be shown."""
    values = []
    for path in (ROOT / "results").glob("**/*.csv"):
        frame = pd.read_csv(path).select_dtypes("number")
        values += frame.to_numpy().ravel().tolist()
    for table in (constants.TABLE2, constants.TABLE4):
        for rows in table.values():
            values += itertools.chain.from_iterable(rows.values())
    numbers = {shown(value, sign) for value in values for sign in ("", "+")}
    for path in (ROOT / "results").glob("**/*.json"):
        record = json.loads(path.read_text("utf-8"))
        differences = " ".join(record.get("differs_from_the_paper", ()))
        numbers |= set(DECIMAL.findall(differences))
        for seconds in record.get("seconds_per_stage", {}).values():
            minutes, rest = divmod(round(seconds), 60)
            numbers.add(f"{minutes // 60}:{minutes % 60:02}:{rest:02}")
    return numbers


def distances_from_the_paper():
    """Return mean absolute differences over both tables and their parts."""
    means = []
    for directory in (ROOT / "results", ROOT / "results" / "printed"):
        for path in directory.glob("table2_*_cells.csv"):
            table2 = pd.read_csv(path).dropna(subset="paper")
            # The columns without attack count once.
            clean = table2["column"].str.startswith("no_attack")
            table2 = table2[~clean | (table2["attack"] == "FGSM")]
            path = path.with_name(path.name.replace("table2", "table4"))
            table4 = pd.read_csv(path).dropna(subset="paper")
            of_row = table2["method"] == "Rand. Ini."
            for part in (
                *(table2[of_row], table2[~of_row]),
                *(table4, pd.concat([table2, table4])),
            ):
                means.append(part["difference"].abs().mean())
    for path in (ROOT / "results").glob("atlas_*.csv"):
        atlas = pd.read_csv(path)
        for loss in atlas["loss"].unique():
            means += [r["distance"] for r in distances(atlas, loss=loss)]
    return {shown(mean) for mean in means}


def means_of_the_readme():
    """Return the means that README.md shows, from the CSV files."""
    means = []
    for dataset in constants.TABLE2:
        cells = pd.read_csv(ROOT / "results" / f"table2_{dataset}_cells.csv")
        bim = cells[cells["attack"] == "BIM"]
        for column in ("grad1_single", "grad1_single_exact"):
            means.append(bim.loc[bim["column"] == column, "accuracy"].mean())
    return {shown(mean) for mean in means}


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_every_number_follows_from_results_or_the_paper(page):
    text = generated(page, "results")
    numbers = set(DECIMAL.findall(text) + re.findall(r"\d+:\d+:\d+", text))
    assert len(numbers) > 20
    known = stored_numbers() | distances_from_the_paper()
    if page == "README.md":
        known |= means_of_the_readme()
    assert numbers <= known


def test_no_number_of_the_results_page_is_typed_by_hand():
    text = (ROOT / readme.PAGE).read_text("utf-8")
    by_hand = text.replace(generated(readme.PAGE, "results"), "")
    assert set(DECIMAL.findall(by_hand)) <= {"1709.03423"}
