"""The committed results follow from their outcomes, byte for byte."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens import datasets
from advens.attacks.threat import Attack, LabelMode
from advens.strauss2017 import columns
from advens.strauss2017.atlas_choice import distances
from advens.strauss2017.cells import AnomalyPoint, unpack_cells
from advens.strauss2017.claims import judge_alternatives
from advens.strauss2017.reporting import captions, ledger, results, tables
from advens.strauss2017.reporting.anomaly_report import anomaly_frame
from advens.strauss2017.reporting.noise_report import noise_frame

ROOT = Path(__file__).parents[3]
ANOMALY_NAMES = {
    f"{column.name}_{labels}{suffix}": (column.name, labels, suffix == "_box")
    for column in columns.ANOMALY
    for labels in get_args(LabelMode)
    for suffix in ("", "_box")
}


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Return a directory with the committed results, without what was run since."""
    command = ["git", "ls-files", "results"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    directory = tmp_path_factory.mktemp("committed")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.parent.name == "results" and path.exists():
            shutil.copy(path, directory)
    return directory


def stored(directory, script):
    """Return what a script wrote per data set: its name, cells, labels, manifest."""
    for dataset in datasets.NAMES:
        path = directory / f"{script}_{dataset}_outcomes.npz"
        if path.exists():
            with np.load(path) as arrays:
                cells, y_test = unpack_cells(dict(arrays)), arrays["y_test"]
            record = json.loads((directory / f"{script}_{dataset}.json").read_text())
            yield f"{script}_{dataset}", cells, y_test, record


@pytest.mark.parametrize("table", columns.TABLES)
def test_tables(committed, tmp_path, table):
    names = []
    for name, cells, y_test, record in stored(committed, table):
        paths = tables.write_table(
            cells, record, y_test=y_test, out_dir=tmp_path, name=name
        )
        for path in paths:
            if path.suffix != ".npz":
                text = (committed / path.name).read_text()
                assert path.read_text() == text, path.name
        outcomes = f"{name}_outcomes.npz"
        with np.load(committed / outcomes) as old, np.load(tmp_path / outcomes) as new:
            assert old.files == new.files
            for key in old.files:
                assert_array_equal(old[key], new[key])
        names.append(name)
    assert {f"{table}_mnist", f"{table}_cifar10"} <= set(names)


def assert_same_text(frame, path):
    """Compare the columns that the file had when it was written."""
    names = path.read_text().partition("\n")[0].split(",")
    text = frame[names].to_csv(index=False, float_format="%.6g")
    assert text == path.read_text(), path.name


def test_anomaly(committed):
    names = []
    for name, cells, _, record in stored(committed, "anomaly"):
        [bim] = [attack for attack in record["attacks"] if attack["name"] == "BIM"]
        points = []
        for cell in cells:
            column, labels, box = ANOMALY_NAMES[cell.column]
            num_steps = int(cell.attack.removeprefix("BIM "))
            attack = Attack("BIM", bim["eps"], bim["step_size"], num_steps, box=box)
            points.append(AnomalyPoint(column, labels, attack, cell))
        assert_same_text(anomaly_frame(points), committed / f"{name}.csv")
        names.append(name)
    assert {"anomaly_mnist", "anomaly_cifar10"} <= set(names)


def test_noise_sweep(committed):
    names = []
    for name, packed, _, _ in stored(committed, "noise_sweep"):
        cells = {}
        for cell in packed:
            noise_std = float(cell.column.removeprefix("noise_std="))
            cells[noise_std] = dataclasses.replace(
                cell, attack="FGSM", column="no_attack_single"
            )
        assert_same_text(noise_frame(cells), committed / f"{name}.csv")
        names.append(name)
    assert {"noise_sweep_mnist", "noise_sweep_cifar10"} <= set(names)


def test_claims(committed, tmp_path):
    cells, notes = ledger.read_cells(committed)
    ledger.write_ledger(judge_alternatives(cells), notes, out_dir=tmp_path)
    for name in ("claims.csv", "claims.md"):
        assert (tmp_path / name).read_text() == (committed / name).read_text(), name


def test_differences(committed):
    frame = results.differences(results.read_results(committed))
    assert frame.to_csv(index=False) == (committed / "differences.csv").read_text()


def test_captions(committed):
    stored = results.read_results(committed)
    table2 = {name: stored.tables["table2", name] for name in ("mnist", "cifar10")}
    figures = ROOT / "figures"
    caption = captions.figure2_caption(table2)
    assert caption == (figures / "figure2_caption.tex").read_text()
    for name, anomaly in stored.anomalies.items():
        caption = captions.anomaly_caption(anomaly)
        assert caption == (figures / f"anomaly_{name}_caption.tex").read_text()
    for name, atlas in stored.atlases.items():
        caption = captions.atlas_caption(atlas, distances(atlas.cells))
        assert caption == (figures / f"atlas_{name}_caption.tex").read_text()
