"""The ledger, checked against the paper's own tables and on made-up outcomes."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl.testing import flagsaver
from numpy.testing import assert_allclose
from rich.console import Console

from advens import claims, ledger, paper, recipes, tables
from advens.paper import CLAIMS, Claim
from advens.tables import Cell
from reproduce import claims as script
from reproduce import common, shared_flags

N = 10_000


def cell(address, right, n=N, *, dataset="mnist", runs=1, start=0):
    """Return a cell whose runs are right on images `start` to `start + right`."""
    images = np.arange(n)
    correct = (start <= images) & (images < start + right)
    return Cell(dataset, *address.split("/"), np.repeat(correct[None], runs, axis=0))


def paper_cells(dataset, *, table4=True):
    """Return Tables 2 and 4 as the paper has them; the fewer right are among the more.

    The columns that are not in the paper are missing.
    """
    found = {
        f"{attack}/{row}/{column}": value
        for (attack, row), values in paper.TABLE2[dataset].items()
        for column, value in zip(paper.TABLE2_COLUMNS, values, strict=True)
    }
    for row, values in paper.TABLE4[dataset].items() if table4 else ():
        for attack, column, value in zip(
            ("none", "FGSM", "BIM"), paper.TABLE4_COLUMNS, values, strict=True
        ):
            found[f"{attack}/{row}/{column}"] = value
    return [cell(k, round(v * N), dataset=dataset) for k, v in found.items()]


def claim(*rests_on, key="key", datasets=("mnist",)):
    return Claim(key, "Section 0", "What it says.", datasets, rests_on)


def judged(rests_on, cells, **options):
    frame = claims.judge(cells, claims=[claim(*rests_on)], **options)
    assert len(frame) == 1
    return frame.iloc[0]


PAIRS = [(c, dataset) for c in CLAIMS for dataset in c.datasets if dataset != "digits"]


@pytest.mark.parametrize(
    ("claim", "dataset"), PAIRS, ids=[f"{c.key}-{dataset}" for c, dataset in PAIRS]
)
def test_claim_holds_in_the_papers_own_tables(claim, dataset):
    values = {
        f"{c.attack}/{c.row}/{c.column}": c.paper for c in paper_cells(dataset)
    } | {None: 0.0}
    found = [c for c in claims.comparisons(claim) if set(c.cells) <= set(values)]
    assert len(found) == (
        0
        if claim.key == "bim_grad2_weaker_repredicted"
        else len(claims.comparisons(claim))
    )
    for c in found:
        assert values[c.higher] - values[c.lower] > c.margin, c.text


# .9920 against .9918: 2 images, which may be chance at best.
WITHIN_CHANCE = {"mnist": ["noise_ensemble_beats_all_singles_clean"], "cifar10": []}


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_verdicts_on_the_papers_own_tables(dataset):
    frame = claims.judge(paper_cells(dataset)).set_index("key")
    assert set(frame["dataset"]) == {dataset}
    assert frame["reversed"].sum() == 0
    missing = frame[frame["verdict"] == claims.MISSING]
    assert list(missing.index) == ["bim_grad2_weaker_repredicted"]
    open_ = frame.index[frame["verdict"] == claims.OPEN]
    assert list(open_) == WITHIN_CHANCE[dataset]
    rest = frame.drop([*missing.index, *open_])
    assert set(rest["verdict"]) == {claims.REPRODUCED}
    assert (rest["held"] == rest["total"]).all()
    assert (rest["largest_adjusted_p"] < claims.ALPHA).all()


def test_claims_are_well_formed():
    assert len({c.key for c in CLAIMS}) == len(CLAIMS) >= 15
    attacks = {
        **dict.fromkeys(tables.TABLE2_COLUMNS, {"FGSM", "BIM"}),
        **{"no_attack": {"none"}, "fgsm": {"FGSM"}, "bim": {"BIM"}},
    }
    for c in CLAIMS:
        assert set(c.datasets) <= set(paper.EPOCHS)
        found = claims.comparisons(c)
        assert len(set(found)) == len(found) >= 1, c.key
        for comparison in found:
            assert comparison.higher != comparison.lower
            for address in comparison.cells:
                attack, row, column = address.split("/")
                assert recipes.parts(row)
                assert attack in attacks[column], comparison


def test_comparisons_are_spelt_out():
    found = claims.comparisons(
        claim(
            "{attack}/bagging/fgsm > {attack}/{plain}/fgsm + 0.07",
            "0.56 + 0.02 > FGSM/bagging+adv_train/fgsm > 0.35 - 0.02",
        )
    )
    assert [(c.higher, c.lower, c.margin) for c in found] == [
        ("FGSM/bagging/fgsm", "FGSM/rand_ini/fgsm", 0.07),
        ("FGSM/bagging/fgsm", "FGSM/mix_mod/fgsm", 0.07),
        ("BIM/bagging/fgsm", "BIM/rand_ini/fgsm", 0.07),
        ("BIM/bagging/fgsm", "BIM/mix_mod/fgsm", 0.07),
        (None, "FGSM/bagging+adv_train/fgsm", -0.58),
        ("FGSM/bagging+adv_train/fgsm", None, 0.33),
    ]
    assert found[4].text == "0.56 + 0.02 > FGSM/bagging+adv_train/fgsm"
    [found] = claims.comparisons(claim(f"{A} > {B} + 0.07 - 0.02"))
    assert (found.higher, found.lower, found.margin) == (A, B, 0.05)
    with pytest.raises(ValueError, match="key compares two levels: 0.5 > 0.4"):
        claims.comparisons(claim("0.5 > 0.4"))


A, B, C = "BIM/bagging/bim", "BIM/adv_train/bim", "BIM/def_dist/bim"


@pytest.mark.parametrize(
    ("right", "rests_on", "verdict", "counts", "reason"),
    [
        # All images that only one has right are A's: p = 2 / 2^k.
        ((600, 500), [f"{A} > {B}"], "reproduced", (1, 0, 1), ""),
        (
            *((500, 600), [f"{A} > {B}"], "not reproduced", (0, 1, 1)),
            f"reversed: {A} > {B} (0.0500, 0.0600; p = 1.6e-30)",
        ),
        (
            *((505, 500), [f"{A} > {B}"], "undetermined at this scale", (0, 0, 1)),
            f"open: {A} > {B} (0.0505, 0.0500; p = 0.062)",
        ),
        ((506, 500), [f"{A} > {B}"], "reproduced", (1, 0, 1), ""),
        ((500, 500), [f"{A} > {B}"], "undetermined at this scale", (0, 0, 1), None),
        (
            *((600, 500), [f"{A} > {C}", f"{A} > {B}"], "undetermined", (1, 0, 2)),
            f"missing: no cell {C}",
        ),
        # What is reversed decides, then what is missing, then what is open.
        (
            *((500, 600), [f"{A} > {C}", f"{A} > {B}"], "not reproduced", (0, 1, 2)),
            None,
        ),
        ((501, 500), [f"{A} > {B}", f"{A} > {C}"], "undetermined", (0, 0, 2), None),
        # Margins and levels.
        ((600, 500), [f"{A} > {B} + 0.005"], "reproduced", (1, 0, 1), None),
        ((600, 500), [f"{A} > {B} + 0.015"], "not reproduced", (0, 1, 1), None),
        ((500, 520), [f"{A} > {B} - 0.01"], "reproduced", (1, 0, 1), None),
        ((600, 0), [f"0.07 > {A} > 0.05"], "reproduced", (2, 0, 2), None),
        ((600, 0), [f"0.05 > {A}"], "not reproduced", (0, 1, 1), None),
        ((600, 0), [f"{A} > 0.07"], "not reproduced", (0, 1, 1), None),
        (
            *((600, 0), [f"{A} > 0.06"], "undetermined at this scale", (0, 0, 1)),
            f"open: {A} > 0.06 (0.0600; p = 1)",
        ),
    ],
)
def test_verdicts(right, rests_on, verdict, counts, reason):
    row = judged(rests_on, [cell(A, right[0]), cell(B, right[1])])
    assert row["verdict"] == verdict
    assert tuple(row[["held", "reversed", "total"]]) == counts
    if reason is not None:
        assert row["reason"] == reason


def test_holm_takes_in_all_comparisons_of_a_data_set_each_once():
    def cells(dataset):
        return [cell(k, v, dataset=dataset) for k, v in ((A, 506), (B, 500), (C, 500))]

    both = ("mnist", "cifar10")
    first = claim(f"{A} > {B}", key="first", datasets=both)
    same = claim(f"{A} > {B}", key="same")
    other = claim(f"{A} > {C}", key="other")

    def p_values(*found):
        frame = claims.judge([*cells("mnist"), *cells("cifar10")], claims=found)
        return frame.set_index(["dataset", "key"])["largest_adjusted_p"].to_dict()

    # 2 / 2^6 each.
    alone = {("mnist", "first"): 1 / 32, ("cifar10", "first"): 1 / 32}
    assert p_values(first) == alone
    assert p_values(first, same) == alone | {("mnist", "same"): 1 / 32}
    assert p_values(first, other) == {
        ("mnist", "first"): 1 / 16,
        ("mnist", "other"): 1 / 16,
        ("cifar10", "first"): 1 / 32,
    }


def test_runs_of_one_image_are_no_more_images():
    # 10 members that agree tell no more than one, and pair with one ensemble.
    row = judged([f"{A} > {B}"], [cell(A, 503, runs=10), cell(B, 500)])
    assert row["verdict"] == claims.OPEN
    assert_allclose(row["largest_adjusted_p"], 0.18, atol=0.01)
    row = judged([f"{A} > {B}"], [cell(A, 600, runs=10), cell(B, 500)])
    assert row["verdict"] == claims.REPRODUCED


def test_pairs_are_of_the_same_images():
    # The same accuracies as above: 6 images apart in 1,006 that only one has right.
    row = judged([f"{A} > {B}"], [cell(A, 506), cell(B, 500, start=5000)])
    assert row["verdict"] == claims.OPEN
    assert row["largest_adjusted_p"] > 0.8
    with pytest.raises(ValueError, match="on mnist must be of the same test images. R"):
        judged([f"{A} > {B}"], [cell(A, 5, n=20), cell(B, 5, n=30)])


def test_alpha():
    cells = [cell(A, 506), cell(B, 500)]
    assert judged([f"{A} > {B}"], cells, alpha=0.03)["verdict"] == claims.OPEN


def save(directory, dataset, cells, name="table2", differs=(), images="a"):
    record = {
        "differs_from_the_paper": list(differs),
        "data": {"sha256": {"test": images}},
        "seeds": {"run": 3},
    }
    tables.write(cells, record, y_test=[], out_dir=directory, name=f"{name}_{dataset}")


def run(*arguments):
    with flagsaver.flagsaver():
        shared_flags.FLAGS(["claims.py", *arguments])
        script.claims()


def test_script_writes_and_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(Path("results"), "cifar10", paper_cells("cifar10", table4=False))
    cells = paper_cells("mnist")
    save(Path("results"), "mnist", cells[:40], differs=["epochs=2", "seed=1"])
    save(Path("results"), "mnist", cells[40:], "table4")
    run()
    printed = capsys.readouterr().out
    frame = pd.read_csv("results/claims.csv")
    assert list(frame.columns) == [
        *("key", "section", "dataset", "claim", "held", "reversed", "total"),
        *("largest_adjusted_p", "verdict", "reason"),
        *("verdict_repredicted_labels", "verdict_exact_gradients"),
    ]
    counts = {name: sum(name in c.datasets for c in CLAIMS) for name in paper.EPOCHS}
    assert dict(frame["dataset"].value_counts()) == {
        "mnist": counts["mnist"],
        "cifar10": counts["cifar10"],
    }
    found = frame.set_index(["dataset", "key"])
    row = found.loc["mnist", "clean_gain_below_1_point"]
    assert (row["held"], row["total"], row["verdict"]) == (4, 4, "reproduced")
    row = found.loc["cifar10", "bagging_beats_defenses_clean"]
    assert (row["held"], row["total"], row["verdict"]) == (0, 2, "undetermined")
    assert row["reason"].startswith("missing: no cell none/bagging/no_attack and none/")
    assert np.isnan(row["largest_adjusted_p"])
    page = Path("results/claims.md").read_text()
    assert "## mnist" in page
    note = (
        "_mnist_outcomes.npz: 10000 test images, run seed 3; differs from the paper: "
    )
    assert f"- table2{note}epochs=2, seed=1\n- table4{note}no\n" in page
    line = next(s for s in page.splitlines() if "| `bagging_beats_defenses_attac" in s)
    assert "| 4/4 |" in line
    assert line.count("|") == 10
    assert "undetermined at this scale" in printed
    assert "wrote results/claims.csv" in printed


def test_script_reads_and_writes_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("there"), "digits", [cell(A, 5, dataset="digits")])
    before = set(Path("there").iterdir())
    run("--results_dir=there")
    written = {path.name for path in set(Path("there").iterdir()) - before}
    assert written == {"claims.csv", "claims.md"}
    assert not Path("results").exists()


def failed(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["claims.py", *arguments])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as error:
        common.main(script.claims)
    assert error.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_nothing_to_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    err = failed(monkeypatch, capsys, "--results_dir=there")
    assert "there/table2_digits_outcomes.npz is missing" in err
    assert "python reproduce/table2.py --dataset=digits --out_dir=there" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["table2_mnist_outcomes.npz", "table2_mnist.json"])
def test_damaged_file(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    save(Path("results"), "mnist", paper_cells("mnist", table4=False))
    path = Path("results") / name
    path.write_bytes(path.read_bytes()[:-10])
    err = failed(monkeypatch, capsys)
    assert "results/table2_mnist_outcomes.npz or its .json cannot be read (" in err
    assert "python reproduce/table2.py --dataset=mnist --out_dir=results" in err
    assert not Path("results/claims.csv").exists()


def test_tables_of_other_images_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(Path("results"), "mnist", paper_cells("mnist", table4=False))
    save(Path("results"), "mnist", [cell(A, 5)], "table4", images="b")
    err = failed(monkeypatch, capsys)
    assert "on mnist must be of the same test images. Received: SHA-256 a and b" in err


def test_each_claim_is_judged_in_each_reading():
    """In the paper all holds; then nothing does that rests on what is read anew."""
    cells = paper_cells("mnist")
    read = [
        dataclasses.replace(c, column=other, correct=np.zeros_like(c.correct))
        for c in cells
        for reading in claims.READINGS.values()
        for address, other in reading.items()
        if (c.attack, c.column) == address
    ]
    frame = claims.judge_readings([*cells, *read]).set_index("key")
    names = [f"verdict_{name}" for name in claims.READINGS]
    shown = frame[["verdict", *names]]
    no, yes = claims.NOT_REPRODUCED, claims.REPRODUCED
    for key, want in {
        "clean_level_mnist": (yes, "", ""),
        "fgsm_grad2_stronger": (yes, "", claims.OPEN),
        "fgsm_singles_level_mnist": (yes, "", no),
        "bim_gain_37_points": (yes, no, no),
        "bagging_adv_train_best_attacked": (yes, claims.OPEN, ""),
        # It says itself how labels are read.
        "bim_grad2_weaker_repredicted": (no, "", ""),
    }.items():
        assert tuple(shown.loc[key]) == want, key
    # Where there is no such cell, nothing is claimed.
    alone = claims.judge_readings(cells).set_index("key")
    assert alone.loc["bim_gain_37_points", "verdict_exact_gradients"] == claims.MISSING


def test_terminal():
    frame = claims.judge([cell(A, 600), cell(B, 500)], claims=[claim(f"{A} > {B}")])
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(ledger.render(frame))
    text = console.export_text()
    for shown in ("mnist", "key", "What it says.", "1/1", "1.6e-30", "reproduced"):
        assert shown in text
