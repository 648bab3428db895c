"""The scripts, as a user calls them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl.testing import flagsaver
from numpy.testing import assert_allclose, assert_array_equal

from advens import datasets, evaluation, experiments, manifest, tables, training
from reproduce import anomaly, common, noise_sweep, shared_flags, table2, table4

SCRIPTS = Path(table2.__file__).parent
REDUCED = (
    *("--num_members=2", "--epochs=1", "--train_images=128", "--test_images=20"),
    "--bim_num_steps=3",
)
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "ADVENS_DATA_DIR"}


def call(function, *arguments):
    with flagsaver.flagsaver():
        shared_flags.FLAGS(["script", *arguments])
        function()


def start(script, *arguments, cwd, **options):
    command = [sys.executable, SCRIPTS / f"{script}.py", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, text=True, stdout=-1, stderr=-1, **options
    )


def test_a_second_run_keeps_the_times_of_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("results/table2_digits.json")
    call(table2.table2, *REDUCED, "--methods=bagging")
    first = json.loads(path.read_text())
    assert not [name for name in first["flags"] if "oom" in name or "tt_" in name]
    first["seconds_per_stage"] = {"train bagging": 5000.0, "attack bagging": 0.0}
    path.write_text(json.dumps(first))
    call(table2.table2, *REDUCED, "--methods=bagging")
    seconds = json.loads(path.read_text())["seconds_per_stage"]
    assert seconds["train bagging"] == 5000
    path.write_text("{")
    with pytest.raises(ValueError, match="table2_digits.json is no whole manifest"):
        call(table2.table2, *REDUCED, "--methods=bagging")


@pytest.mark.parametrize("key", ["settings", "attacks", "seeds", "data", "hardware"])
def test_times_of_another_run_are_not_kept(key):
    same = dict.fromkeys(("settings", "attacks", "seeds", "data", "hardware"), (1,))
    record = {**same, "seconds_per_stage": {"train": 2.0, "attack": 0.5}}
    before = {**record, "seconds_per_stage": {"train": 1.0, "attack": 3.0, "x": 4.0}}
    before = json.loads(json.dumps(before))
    kept = manifest.with_seconds(record, before)
    assert kept == {**record, "seconds_per_stage": {"train": 2.0, "attack": 3.0}}
    assert manifest.with_seconds(record, {**before, key: [2]}) == record
    assert manifest.with_seconds(record, {}) == record


@pytest.mark.parametrize(
    ("script", "flag", "less", "differs"),
    [
        (table2.table2, "--methods=bagging,mix_mod", "no rand_ini", []),
        (table4.table4, "--rows=bagging", "no rand_ini", []),
        (table2.table2, "--num_members=2", "num_members=2", []),
        (table2.table2, "--methods=mix_mod", "no bagging, no rand_ini", ["epochs=1"]),
    ],
)
def test_nothing_less_replaces_a_table(
    tmp_path, monkeypatch, script, flag, less, differs
):
    monkeypatch.chdir(tmp_path)
    name = script.__name__
    monkeypatch.setattr(experiments.Run, "train", None)
    run = experiments.Run.deviations
    monkeypatch.setattr(
        experiments.Run,
        "deviations",
        lambda self: [d for d in run(self) if "images" not in d],
    )
    fake = {"x_train": np.zeros((2, 28, 28), "uint8"), "y_train": np.arange(2)}
    fake |= {k.replace("train", "test"): v for k, v in fake.items()}
    np.savez("mnist.npz", **fake)
    rows = ["rand_ini", "bagging"]
    flags = {"methods": rows, "rows": rows}
    record = {"differs_from_the_paper": differs, "flags": flags}
    path = Path(f"results/{name}_mnist.json")
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"less .{less}. in .* out_dir='results'"):
        call(script, "--dataset=mnist", "--data_dir=.", flag)
    assert json.loads(path.read_text()) == record


def test_table2_writes_and_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call(table2.table2, *REDUCED, "--methods=bagging,rand_ini")
    printed = capsys.readouterr().out
    frame = pd.read_csv("results/table2_digits.csv")
    assert list(frame.columns) == [
        *("attack", "method", "no_attack_single", "no_attack_ensemble"),
        *("grad1_single", "grad1_ensemble", "grad2_ensemble"),
        *("grad2_ensemble_repredicted", "ensemble_gradient"),
        *("grad1_single_exact", "grad1_ensemble_exact", "grad2_ensemble_exact"),
    ]
    assert list(frame["method"]) == ["Rand. Ini.", "Bagging"] * 2
    assert f"{frame['grad1_single'][0]:.4f}" in printed
    assert "Table 2 on digits (epochs=1, num_members=2, BIM num_steps=3" in printed
    assert "grad1_single: each member under its own gradient" in printed
    cells = pd.read_csv("results/table2_digits_cells.csv")
    assert len(cells) == 4 * 10
    record = json.loads(Path("results/table2_digits.json").read_text())
    assert record["flags"]["num_members"] == 2
    assert record["flags"]["n_jobs"] == training.default_jobs()
    assert record["settings"]["noise_std"] == 0.3
    assert [attack["name"] for attack in record["attacks"]] == ["FGSM", "BIM"]
    assert len(record["seeds"]["members"]) == 2
    assert record["versions"]["keras"]
    assert record["hardware"]["cores"] >= 1
    assert set(record["data"]["sha256"]) == {"train", "test"}
    assert "train bagging" in record["seconds_per_stage"]
    assert len(record["differs_from_the_paper"]) == 5
    assert not [key for key in record["flags"] if "verbosity" in key]


def test_table4_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "--rows=adv_train,gauss_noise+def_dist"
    call(table4.table4, *REDUCED, rows, "--rho=0.25", "--distillation=papernot")
    frame = pd.read_csv("results/table4_digits.csv")
    assert list(frame.columns) == [
        *("method", "no_attack", "fgsm", "bim", "bim_repredicted"),
        *("fgsm_ensemble_gradient", "bim_ensemble_gradient"),
    ]
    assert list(frame["method"]) == ["Adv. Train.", "Gauss Noise + Def. Dist."]
    assert "rho=0.25, distillation=papernot" in capsys.readouterr().out


def test_noise_sweep_writes_and_trains_what_table2_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reduced = REDUCED[1:]
    call(noise_sweep.noise_sweep, *reduced, "--noise_stds=0.3,0,0.3")
    frame = pd.read_csv("results/noise_sweep_digits.csv")
    assert list(frame["noise_std"]) == [0.3, 0.0]
    assert list(frame["num_members"]) == [1, 1]
    assert not frame["closest"].any()  # the paper has no digits
    assert f"{frame['accuracy'][1]:.4f}" in capsys.readouterr().out
    record = json.loads(Path("results/noise_sweep_digits.json").read_text())
    assert record["flags"]["noise_stds"] == ["0.3", "0", "0.3"]
    assert "num_members=1" in record["differs_from_the_paper"]
    with np.load("results/noise_sweep_digits_outcomes.npz") as arrays:
        cells = tables.unpack(dict(arrays))
        assert list(arrays["y_test"]) == list(datasets.load("digits").y_test[:20])
    assert [cell.column for cell in cells] == ["noise_std=0.3", "noise_std=0"]
    assert_allclose([cell.accuracy for cell in cells], frame["accuracy"], rtol=1e-5)

    trained = modified("advens-work/member")
    call(table2.table2, *reduced, "--num_members=1", "--methods=gauss_noise")
    assert modified("advens-work/member") == trained
    table = pd.read_csv("results/table2_digits_cells.csv").set_index("column")
    assert table["accuracy"]["no_attack_single"].iloc[0] == frame["accuracy"][0]


def outcomes(name):
    with np.load(f"results/{name}_outcomes.npz") as arrays:
        cells = tables.unpack(dict(arrays))
    return {(cell.attack, cell.column): cell for cell in cells}


def modified(directory):
    return {path: path.stat().st_mtime_ns for path in Path(directory).iterdir()}


def test_anomaly_writes_draws_and_is_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call(table2.table2, *REDUCED, "--methods=bagging")
    trained = modified("advens-work/member")
    walk = ("--method=bagging", "--num_grad1=1", "--max_num_steps=4")
    call(anomaly.anomaly, *REDUCED, *walk)
    assert modified("advens-work/member") == trained
    printed = capsys.readouterr().out
    files = [
        *(f"results/anomaly_digits{end}" for end in (".csv", ".json", "_outcomes.npz")),
        *(f"figures/anomaly_digits{end}" for end in (".pdf", ".png")),
    ]
    assert all(f"wrote {file}" in printed for file in files)
    written = {file: Path(file).read_bytes() for file in files}
    assert json.loads(written[files[1]])["flags"]["num_grad1"] == 1

    frame = pd.read_csv(files[0])
    names = ["column", "labels", "box", "num_steps"]
    assert len(frame) == len(frame[names].drop_duplicates()) == 4 * 3 * 2 * 4
    accuracy = frame.set_index(names)["accuracy"]
    assert f"{accuracy['grad2_ensemble', 'repredicted', True, 3]:.4f}" in printed
    # After BIM's steps, what Table 2 has; it has each member's Grad. 1.
    ours, theirs = outcomes("anomaly_digits"), outcomes("table2_digits")
    for column, labels, column2 in (
        ("grad1_single", "true", "grad1_single"),
        ("grad1_ensemble", "true", "grad1_ensemble"),
        ("grad2_ensemble", "true", "grad2_ensemble"),
        ("grad2_ensemble", "repredicted", "grad2_ensemble_repredicted"),
        ("ensemble_gradient", "true", "ensemble_gradient"),
    ):
        cell, want = ours["BIM 3", f"{column}_{labels}"], theirs["BIM", column2]
        assert_array_equal(cell.correct, want.correct[:1])
        assert_array_equal(cell.zero_gradient, want.zero_gradient[:1])
        assert_allclose(accuracy[column, labels, False, 3], cell.accuracy, atol=1e-6)

    monkeypatch.setattr(evaluation, "_judged", None)
    call(anomaly.anomaly, *REDUCED, *walk)
    for file in files[:1] + files[2:]:
        assert Path(file).read_bytes() == written[file]


@pytest.mark.parametrize(
    ("function", "flag", "message"),
    [
        (table2.table2, "--methods=rand_ini,boosting", "`methods` must be some of"),
        (table2.table2, "--methods=", "`methods` must be some of"),
        (table2.table2, "--num_members=0", "`num_members` must be >= 1"),
        (table2.table2, "--epochs=0", "`epochs` must be >= 1"),
        (table2.table2, "--test_images=361", "must be in 1..360"),
        (table2.table2, "--fgsm_eps=-0.1", "`eps` must be >= 0. Received: eps=-0.1"),
        (table2.table2, "--noise_std=nan", "`noise_std` must be >= 0"),
        (table2.table2, "--optimizer=adm", "name of a Keras optimizer"),
        (table2.table2, "--work_dir=occupied", "Cannot write to the store"),
        (table2.table2, "--out_dir=occupied", "`out_dir` must be a directory"),
        (table2.table2, "--data_dir=missing", "must be an existing directory"),
        (table4.table4, "--rows=bagging+boosting", "Received: row='boosting'"),
        (table4.table4, "--rho=1.5", r"`rho` must be in \[0, 1\]"),
        (table4.table4, "--num_singles=0", "`num_singles` must be >= 1"),
        (anomaly.anomaly, "--method=boosting", "Received: row='boosting'"),
        (anomaly.anomaly, "--method=adv_train", "`row` must be of an ensemble"),
        (anomaly.anomaly, "--max_num_steps=7", "`max_num_steps` must be >= .* 8."),
        (anomaly.anomaly, "--num_grad1=11", "`num_grad1` must be from 1 to 10"),
        (anomaly.anomaly, "--num_grad1=0", "`num_grad1` must be from 1 to 10"),
        (anomaly.anomaly, "--box", "`box` has no place here"),
        (noise_sweep.noise_sweep, "--noise_stds=a", "must be numbers.*noise_stds=a"),
        (noise_sweep.noise_sweep, "--noise_stds=", "must be one or more numbers"),
        (noise_sweep.noise_sweep, "--noise_stds=-1", "`noise_std` must be >= 0"),
        (noise_sweep.noise_sweep, "--noise_std=1", "`noise_std` has no place here"),
        (anomaly.anomaly, "--fgsm_eps=0.1", "`fgsm_eps` has no place here"),
        (anomaly.anomaly, "--figures_dir=occupied", "`figures_dir` must be a directo"),
    ],
)
def test_bad_flags_are_found_before_any_training(
    tmp_path, monkeypatch, function, flag, message
):
    monkeypatch.chdir(tmp_path)
    Path("occupied").touch()
    monkeypatch.setattr("advens.training.fit_members", None)
    with pytest.raises((ValueError, OSError), match=message):
        call(function, flag)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--dataset=svhn", "flag --dataset=svhn: value should be one of"),
        ("--epochs=ten", "flag --epochs=ten"),
        ("--epoch=1", "Unknown command line flag 'epoch'"),
        ("mnist", "arguments must be flags, as --name=value. Received: ['mnist']"),
        ("--methods=none", "`methods` must be some of rand_ini,mix_mod"),
    ],
)
def test_errors_are_one_line(tmp_path, flag, message):
    process = start("table2", flag, cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_help_needs_no_backend():
    code = (
        "import sys, runpy; path = sys.argv[1]; sys.argv = [path, '--help']\n"
        "try: runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit: print({'keras', 'pandas', 'rich'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, SCRIPTS / "table2.py"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "--num_members" in ran.stdout
    assert ran.stdout.endswith("set()\n"), ran.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "interrupted; the same command goes on from here"),
        (RuntimeError("No network\nstays alive"), "No network stays alive"),
    ],
)
def test_what_ends_a_run_is_told_in_one_line(monkeypatch, capsys, error, message):
    def ended():
        raise error

    monkeypatch.setattr(sys, "argv", ["table2.py"])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as exited:
        common.main(ended)
    assert exited.value.code == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_killed_run_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    arguments = (
        "--methods=bagging",
        "--num_members=2",
        "--epochs=6",
        "--train_images=160",
        "--test_images=20",
        "--n_jobs=1",
        "--bim_num_steps=3",
    )
    process = start("table2", *arguments, cwd=tmp_path)
    members = tmp_path / "advens-work" / "member"
    for _ in range(3000):
        # The second member is under way.
        done = [p.name for p in members.glob("*.npz")]
        if len(done) == 2 and any("step" in name for name in done):
            break
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("results/*"))
    process = start("table2", *arguments, cwd=tmp_path)
    assert process.communicate()[0]
    assert process.returncode == 0
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    monkeypatch.chdir(undisturbed)
    call(table2.table2, *arguments)
    for name in ("table2_digits.csv", "table2_digits_cells.csv"):
        path = Path("results") / name
        assert (tmp_path / path).read_bytes() == path.read_bytes()
