"""The scripts that train and attack, as a user calls them."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import anomaly
import claims
import figure1
import figure2
import latex_tables
import noise_sweep
import pretrained as pretrained_script
import table2
import table4
from advens import datasets, evaluate, load_pretrained, pretrained
from advens.strauss2017 import run
from advens.strauss2017.cells import unpack_cells
from advens.strauss2017.readings import PRINTED, columns_read
from advens.training.members import default_jobs

REDUCED = (
    "--num_members=2",
    "--epochs=1",
    "--train_images=128",
    "--test_images=20",
    "--bim_num_steps=3",
)
# What a manifest records of the flags, in this order, followed by the script's own.
SHARED_FLAGS = [
    *("dataset", "data_dir", "work_dir", "out_dir", "num_members", "epochs"),
    *("train_images", "test_images", "batch_size", "optimizer", "learning_rate"),
    *("noise_std", "logits", "box", "fgsm_eps", "bim_eps", "bim_step_size"),
    *("bim_num_steps", "seed", "n_jobs", "stack", "precision"),
]


def outcomes(name):
    with np.load(f"results/{name}_outcomes.npz") as arrays:
        cells = unpack_cells(dict(arrays))
    return {(cell.attack, cell.column): cell for cell in cells}


def modified(directory):
    return {path: path.stat().st_mtime_ns for path in Path(directory).iterdir()}


def test_a_second_run_keeps_the_times_of_the_first(call):
    path = Path("results/table2_digits.json")
    call(table2.table2, *REDUCED, "--methods=bagging")
    first = json.loads(path.read_text())
    first["seconds_per_stage"] = {"train bagging": 5000.0, "attack bagging": 0.0}
    path.write_text(json.dumps(first))
    call(table2.table2, *REDUCED, "--methods=bagging")
    seconds = json.loads(path.read_text())["seconds_per_stage"]
    assert seconds["train bagging"] == 5000
    path.write_text("{")
    with pytest.raises(ValueError, match="table2_digits.json is not a complete manif"):
        call(table2.table2, *REDUCED, "--methods=bagging")


@pytest.mark.parametrize(
    ("script", "flag", "losses", "earlier"),
    [
        (table2.table2, "--methods=bagging,mix_mod", "no rand_ini", {}),
        (table4.table4, "--rows=bagging", "no rand_ini", {}),
        (table2.table2, "--num_members=2", "num_members=2", {}),
        (
            *(table2.table2, "--columns=default"),
            "no grad1_single_exact, no grad1_ensemble_exact, no grad2_ensemble_exact",
            {},
        ),
        (
            *(table2.table2, "--methods=mix_mod", "no bagging, no rand_ini"),
            {"differs_from_the_paper": ["epochs=1"]},
        ),
        (
            *(table2.table2, "--reading=printed", "reading printed, not other"),
            {"reading": {"name": "other"}},
        ),
    ],
)
def test_no_lesser_or_other_table_replaces_a_table(
    call, monkeypatch, script, flag, losses, earlier
):
    name = script.__name__
    monkeypatch.setattr(run.Run, "train", None)
    deviations = run.Run.deviations
    monkeypatch.setattr(
        run.Run,
        "deviations",
        lambda self: [d for d in deviations(self) if "images" not in d],
    )
    fake = {"x_train": np.zeros((2, 28, 28), "uint8"), "y_train": np.arange(2)}
    fake |= {k.replace("train", "test"): v for k, v in fake.items()}
    np.savez("mnist.npz", **fake)
    rows = ["rand_ini", "bagging"]
    flags = {"methods": rows, "rows": rows}
    record = {"differs_from_the_paper": [], "flags": flags, **earlier}
    path = Path(f"results/{name}_mnist.json")
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError) as error:
        call(script, "--dataset=mnist", "--data_dir=.", "--columns=all", flag)
    assert str(error.value) == (
        f"`out_dir` must be another directory: {path} would be replaced by a lesser "
        f"or another table ({losses}). Received: out_dir='results'"
    )
    assert json.loads(path.read_text()) == record


def test_table2_writes_and_prints(call, capsys):
    call(table2.table2, *REDUCED, "--methods=bagging,rand_ini", "--latex")
    printed = capsys.readouterr().out
    files = [Path(f"results/table2_digits{s}.tex") for s in ("", "_caption")]
    written = [path.read_text() for path in files]
    for path in files:
        assert f"wrote {path}\n" in printed
        path.unlink()
    call(latex_tables.write_tables)
    assert [path.read_text() for path in files] == written
    assert "Digits: 20 test images, ensembles of 2 members" in written[1]
    frame = pd.read_csv("results/table2_digits.csv")
    table = columns_read("table2", PRINTED.labels, "default")
    names = [column.name for column in table]
    assert list(frame.columns) == ["attack", "method", *names]
    assert list(frame["method"]) == ["Rand. Ini.", "Bagging"] * 2
    assert f"{frame['grad1_single'][0]:.4f}" in printed
    assert (
        "Table 2 on digits, reading 'printed' (epochs=1, num_members=2, BIM num_steps=3"
        in printed
    )
    for column in table:
        assert f"{column.name}: {column.meaning}\n" in printed
    assert "wrote results/table2_digits.csv\n" in printed
    cells = pd.read_csv("results/table2_digits_cells.csv")
    assert len(cells) == 4 * len(names)
    record = json.loads(Path("results/table2_digits.json").read_text())
    assert list(record) == [
        *("command", "versions", "hardware", "flags", "reading", "settings", "attacks"),
        *("differs_from_the_paper", "seeds", "data", "restarts", "lost_classes"),
        "seconds_per_stage",
    ]
    shared = [name for name in record["flags"] if name in SHARED_FLAGS]
    assert shared == SHARED_FLAGS
    assert record["flags"]["num_members"] == 2
    assert record["flags"]["n_jobs"] == default_jobs()
    assert record["flags"]["methods"] == ["bagging", "rand_ini"]
    assert not [name for name in record["flags"] if "verbosity" in name]
    assert record["reading"]["name"] == "printed"
    assert record["settings"]["noise_std"] == 0.3
    assert [attack["name"] for attack in record["attacks"]] == ["FGSM", "BIM"]
    assert len(record["seeds"]["members"]) == 2
    assert record["versions"]["keras"]
    assert record["hardware"]["cores"] >= 1
    assert set(record["data"]["sha256"]) == {"train", "test"}
    assert "train bagging" in record["seconds_per_stage"]
    assert len(record["differs_from_the_paper"]) == 5


def test_an_own_data_set_through_all_scripts(call, capsys):
    """Seven classes of grey images of 40 x 24 pixels."""
    rng = np.random.default_rng(0)
    y = np.arange(140) % 7
    x = (0.6 * rng.random((7, 40, 24)))[y] + 0.3 * rng.random((140, 40, 24))
    parts = {"x_train": x[:98], "y_train": y[:98], "x_test": x[98:], "y_test": y[98:]}
    np.savez("leaves.npz", **parts)
    reduced = ("--dataset=leaves.npz", "--epochs=1", "--n_jobs=1", "--bim_num_steps=2")
    call(table2.table2, *reduced, "--num_members=2", "--methods=mix_mod,bagging")
    call(table4.table4, *reduced, "--num_members=2", "--rows=bagging,adv_train")
    call(figure1.figure1, *reduced)
    call(figure2.figure2, "--datasets=leaves")
    call(claims.claims)
    frame = pd.read_csv("results/table2_leaves.csv")
    assert set(frame["method"]) == {"Mix. Mod.", "Bagging"}
    record = json.loads(Path("results/table2_leaves.json").read_text())
    assert record["settings"]["dataset"] == "mnist"
    assert record["settings"]["input_shape"] == [40, 24, 1]
    assert record["data"]["name"] == "leaves"
    assert not frame.filter(like="paper").notna().any(axis=None)
    judged = pd.read_csv("results/claims.csv")
    assert set(judged["dataset"]) == {"leaves"}
    for name in ("figure1.png", "figure2.pdf"):
        assert (Path("figures") / name).exists()
    assert "Table 2 on leaves" in capsys.readouterr().out


def test_exact_gradients_are_one_more_flag(call):
    """They are followed then, and no other attack is made again."""
    reduced = [*REDUCED, "--methods=rand_ini"]
    call(table2.table2, *reduced)
    usual, done = outcomes("table2_digits"), modified("advens-work/outcomes")
    assert not [column for _, column in usual if column.endswith("_exact")]
    call(table2.table2, *reduced, "--columns=all")
    every = outcomes("table2_digits")
    assert modified("advens-work/outcomes").items() > done.items()
    # Two members' own gradients and the mean of both.
    assert len(modified("advens-work/outcomes")) == len(done) + 3
    for key, cell in usual.items():
        assert_array_equal(every[key].correct, cell.correct)
    exact = {column for _, column in every.keys() - usual.keys()}
    assert exact == {
        *("grad1_single_exact", "grad1_ensemble_exact", "grad2_ensemble_exact")
    }
    record = json.loads(Path("results/table2_digits.json").read_text())
    assert record["flags"]["columns"] == "all"


def test_a_table_is_made_from_exported_outcomes(call, capsys, monkeypatch):
    call(table2.table2, *REDUCED, "--methods=rand_ini", "--export=exported")
    assert "exported" in capsys.readouterr().out
    made = Path("results/table2_digits.csv").read_bytes()
    monkeypatch.setattr("advens.training.members._fit", None)
    others = ["--work_dir=elsewhere", "--out_dir=again", "--import=exported"]
    call(table2.table2, *REDUCED, "--methods=rand_ini", *others)
    assert Path("again/table2_digits.csv").read_bytes() == made


def test_pretrained_writes_what_load_pretrained_reads(call, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "DIRECTORY", tmp_path / "there")
    call(pretrained_script.make_pretrained, *REDUCED)
    card = pretrained.card("digits_rand_ini")
    assert card["training"]["settings"]["epochs"] == 1
    data = datasets.load("digits").subset(None, 20)
    [outcomes] = evaluate(load_pretrained("digits_rand_ini"), data.x_test, data.y_test)
    assert outcomes.ensemble.mean() == card["accuracy_of_the_ensemble"]
    assert outcomes.members.mean(axis=1).tolist() == card["accuracy_of_members"]


def test_labels_of_the_columns_are_flags(call, capsys):
    flags = ["--methods=rand_ini", "--bim_grad2_labels=repredicted"]
    call(table2.table2, *REDUCED, *flags)
    frame = pd.read_csv("results/table2_digits.csv")
    assert "grad2_ensemble_true" in frame
    assert "grad2_ensemble_repredicted" not in frame
    record = json.loads(Path("results/table2_digits.json").read_text())
    assert record["reading"]["labels"]["bim_grad2"] == "repredicted"
    assert "bim_grad2_labels=repredicted" in record["differs_from_the_paper"]


def test_table4_writes(call, capsys):
    rows = "--rows=adv_train,gauss_noise+def_dist"
    call(table4.table4, *REDUCED, rows, "--rho=0.25", "--distillation=papernot")
    frame = pd.read_csv("results/table4_digits.csv")
    names = [column.name for column in columns_read("table4", PRINTED.labels)]
    assert list(frame.columns) == ["method", *names]
    assert list(frame["method"]) == ["Adv. Train.", "Gauss Noise + Def. Dist."]
    assert "rho=0.25, distillation=papernot" in capsys.readouterr().out


def test_noise_sweep_writes_and_shares_its_members_with_table2(call, capsys):
    reduced = REDUCED[1:]
    call(noise_sweep.noise_sweep, *reduced, "--noise_stds=0.3,0,0.3")
    frame = pd.read_csv("results/noise_sweep_digits.csv")
    assert list(frame["noise_std"]) == [0.3, 0.0]
    assert list(frame["num_members"]) == [1, 1]
    assert not frame["closest"].any()  # the paper has no digits
    assert f"{frame['accuracy'][1]:.4f}" in capsys.readouterr().out
    record = json.loads(Path("results/noise_sweep_digits.json").read_text())
    assert record["flags"]["noise_stds"] == ["0.3", "0", "0.3"]
    assert record["flags"]["num_members"] == 1
    assert "num_members=1" in record["differs_from_the_paper"]
    with np.load("results/noise_sweep_digits_outcomes.npz") as arrays:
        cells = unpack_cells(dict(arrays))
        assert list(arrays["y_test"]) == list(datasets.load("digits").y_test[:20])
    assert [cell.column for cell in cells] == ["noise_std=0.3", "noise_std=0"]
    assert_allclose([cell.accuracy for cell in cells], frame["accuracy"], rtol=1e-5)

    trained = modified("advens-work/member")
    call(table2.table2, *reduced, "--num_members=1", "--methods=gauss_noise")
    assert modified("advens-work/member") == trained
    table = pd.read_csv("results/table2_digits_cells.csv").set_index("column")
    assert table["accuracy"]["no_attack_single"].iloc[0] == frame["accuracy"][0]


def test_anomaly_writes_draws_and_is_resumed(call, monkeypatch, capsys):
    call(table2.table2, *REDUCED, "--methods=bagging")
    trained = modified("advens-work/member")
    steps = ("--method=bagging", "--num_grad1=1", "--max_num_steps=4")
    call(anomaly.anomaly, *REDUCED, *steps)
    assert modified("advens-work/member") == trained
    printed = capsys.readouterr().out
    files = [
        *(f"results/anomaly_digits{end}" for end in (".csv", ".json", "_outcomes.npz")),
        *(f"figures/anomaly_digits{end}" for end in (".pdf", ".png", "_caption.tex")),
    ]
    assert all(f"wrote {file}" in printed for file in files)
    written = {file: Path(file).read_bytes() for file in files}
    flags = json.loads(written[files[1]])["flags"]
    assert (flags["num_grad1"], flags["test_images"]) == (1, 20)
    caption = written["figures/anomaly_digits_caption.tex"].decode()
    assert (
        "Digits: 20 test images, ensembles of 2 members, Grad.~1 through 1 " in caption
    )

    frame = pd.read_csv(files[0])
    names = ["column", "labels", "box", "num_steps"]
    assert len(frame) == len(frame[names].drop_duplicates()) == 4 * 3 * 2 * 4
    accuracy = frame.set_index(names)["accuracy"]
    assert f"{accuracy['grad2_ensemble', 'repredicted', True, 3]:.4f}" in printed
    # After BIM's own number of steps it is Table 2, which has each member's Grad. 1.
    ours, table = outcomes("anomaly_digits"), outcomes("table2_digits")
    for column, labels, of_table in (
        ("grad1_single", "true", "grad1_single"),
        ("grad1_ensemble", "true", "grad1_ensemble"),
        ("grad2_ensemble", "true", "grad2_ensemble"),
        ("grad2_ensemble", "repredicted", "grad2_ensemble_repredicted"),
        ("ensemble_gradient", "true", "ensemble_gradient"),
    ):
        cell, same = ours["BIM 3", f"{column}_{labels}"], table["BIM", of_table]
        assert_array_equal(cell.correct, same.correct[:1])
        assert_array_equal(cell.zero_gradient, same.zero_gradient[:1])
        assert_allclose(accuracy[column, labels, False, 3], cell.accuracy, atol=1e-6)

    # Nothing is attacked again.
    monkeypatch.setattr(run, "evaluate_batches", None)
    call(anomaly.anomaly, *REDUCED, *steps)
    for file in files[:1] + files[2:]:
        assert Path(file).read_bytes() == written[file]


@pytest.mark.parametrize(
    ("function", "flag", "message"),
    [
        (table2.table2, "--methods=rand_ini,boosting", "`methods` must be some of"),
        (table2.table2, "--methods=", "`methods` must be some of"),
        (table2.table2, "--num_members=0", "`num_members` must be an integer >= 1"),
        (table2.table2, "--epochs=0", "`epochs` must be an integer >= 1"),
        (table2.table2, "--test_images=361", "must be in 1..360"),
        (table2.table2, "--fgsm_eps=-0.1", "`eps` must be >= 0 .* Received: eps=-0.1"),
        (table2.table2, "--noise_std=nan", "`noise_std` must be >= 0"),
        (table2.table2, "--optimizer=adm", "name of a Keras optimizer"),
        (table2.table2, "--work_dir=occupied", "Cannot write to the store"),
        (table2.table2, "--out_dir=occupied", "`out_dir` must be a directory"),
        (table2.table2, "--data_dir=missing", "must be an existing directory"),
        (table4.table4, "--rows=bagging+boosting", "Received: row='boosting'"),
        (table4.table4, "--rows=", "`rows` must hold at least one row"),
        (table4.table4, "--rho=1.5", r"`rho` must be in \[0, 1\]"),
        (table4.table4, "--num_singles=0", "`num_singles` must be an integer >= 1"),
        (anomaly.anomaly, "--method=boosting", "Received: row='boosting'"),
        (anomaly.anomaly, "--method=adv_train", "must be the row of an ensemble"),
        (anomaly.anomaly, "--max_num_steps=7", "`max_num_steps` must be >= .* 8."),
        (anomaly.anomaly, "--num_grad1=11", "`num_grad1` must be from 1 to 10"),
        (anomaly.anomaly, "--num_grad1=0", "`num_grad1` must be from 1 to 10"),
        (anomaly.anomaly, "--box", "`box` has no effect here"),
        (anomaly.anomaly, "--fgsm_eps=0.1", "`fgsm_eps` has no effect here"),
        (anomaly.anomaly, "--figures_dir=occupied", "`figures_dir` must be a directo"),
        (noise_sweep.noise_sweep, "--noise_stds=a", "must be numbers.*noise_stds=a"),
        (noise_sweep.noise_sweep, "--noise_stds=", "must be one or more numbers"),
        (noise_sweep.noise_sweep, "--noise_stds=-1", "`noise_std` must be >= 0"),
        (noise_sweep.noise_sweep, "--noise_std=1", "`noise_std` has no effect here"),
    ],
)
def test_bad_flags_are_found_before_any_training(
    call, monkeypatch, function, flag, message
):
    Path("occupied").touch()
    monkeypatch.setattr("advens.training.members.fit_members", None)
    with pytest.raises((ValueError, OSError), match=message):
        call(function, flag)


def test_killed_run_ends_as_an_undisturbed_one(start, directory):
    arguments = (
        "--methods=bagging",
        "--num_members=2",
        "--epochs=6",
        "--train_images=160",
        "--test_images=20",
        "--n_jobs=1",
        "--bim_num_steps=3",
    )
    process = start("table2", *arguments, cwd=directory)
    members = directory / "advens-work" / "member"
    for _ in range(3000):
        # The second member is being trained.
        done = [path.name for path in members.glob("*.npz")]
        if len(done) == 2 and any("step" in name for name in done):
            break
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(directory.glob("results/*"))
    process = start("table2", *arguments, cwd=directory)
    assert process.communicate()[0]
    assert process.returncode == 0
    undisturbed = directory / "undisturbed"
    undisturbed.mkdir()
    process = start("table2", *arguments, cwd=undisturbed)
    out, err = process.communicate()
    assert out
    # No note of a library.
    assert {line.split(":")[0] for line in err.splitlines()} == {"Bagging"}
    for name in ("table2_digits.csv", "table2_digits_cells.csv"):
        path = Path("results") / name
        assert (directory / path).read_bytes() == (undisturbed / path).read_bytes()
