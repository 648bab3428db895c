"""`advens-audit`: what it makes of a command line, and how it refuses one.

What an audit computes is tested elsewhere; here it is a stand-in.
"""

import errno
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
from keras import layers

from advens import audit as real_audit
from advens import backend
from advens.auditing import options
from advens.auditing.checksums import checksum
from advens.auditing.command import main
from advens.auditing.files import read_audit
from advens.cluster import client
from advens.models.votes import Votes

SHAPE = (3, 3, 1)
X = np.random.default_rng(0).uniform(size=(24, *SHAPE)).astype("float32")
Y = np.arange(24) % 3
RATE = {"value": 0.5, "low": 0.25, "high": 0.75}
BUILDER = """
import keras
from keras import layers

def build():
    return keras.Sequential([
        keras.Input((3, 3, 1)), layers.Flatten(), layers.Dense(3, "softmax")
    ])
"""


def classifier(*body, shape=SHAPE, classes=3, ending="softmax"):
    last = layers.Dense(classes, activation=ending)
    return keras.Sequential([keras.Input(shape), *body, layers.Flatten(), last])


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Work in a directory with two models and data, and return it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # It cannot be undone, and other tests are random.
    monkeypatch.setattr(backend, "make_deterministic", lambda: None)
    (tmp_path / "models").mkdir()
    for name in "ab":
        classifier().save(tmp_path / "models" / f"{name}.keras")
    np.savez(tmp_path / "my.npz", x=X, y=Y)
    return tmp_path


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Replace the audit; return a list of the arguments with which it is called."""
    made = []

    def audit(ensemble, x, y, **settings):
        made.append({"ensemble": ensemble, "x": x, "y": y, **settings})
        document = {
            "settings": {"eps": settings["eps"], "norm": settings["norm"]},
            "members": [{"name": m.name, "file": None} for m in ensemble.members],
            "data": {"file": None, "sha256": checksum([x])},
            "attacks": [{"name": "PGD", "accuracy_after": RATE}],
            "clean_accuracy": RATE,
            "robust_accuracy": RATE,
            "verdict": "As robust as a stand-in.",
        }
        return types.SimpleNamespace(
            document=lambda: document,
            arrays=lambda: {"y": y, "robust": y > 0, "clean_ensemble": y},
        )

    def compare(document, outcomes, other_document, other_outcomes):
        return {"eps": [document["settings"]["eps"], other_document["settings"]["eps"]]}

    def render(document, outcomes, x, *, other=None):
        return f"{document['verdict']} {len(outcomes['y'])} {len(x)} {other}"

    for name, function in (("audit", audit), ("compare", compare), ("report", render)):
        module = types.SimpleNamespace(**{function.__name__: function})
        monkeypatch.setitem(sys.modules, f"advens.auditing.{name}", module)
    return made


def run(*arguments):
    main(["advens-audit", *arguments])


def snapshot(directory):
    return sorted(str(path) for path in directory.rglob("*"))


def test_an_ensemble_that_comes_with_advens(directory, calls):
    arguments = ("--dataset=digits", "--images=5", "--eps=0.1", "--votes=majority")
    run("digits_rand_ini", *arguments)
    [call] = calls
    assert (len(call["ensemble"]), call["ensemble"].votes) == (3, "majority")
    files = [m["file"] for m in read_audit(directory / "audit")[0]["members"]]
    assert files == ["digits_rand_ini"] * 3


def test_audit(directory, calls, capsys):
    run("models/a.keras", "--data=my.npz", "models/b.keras", "--eps=1/8")
    [call] = calls
    np.testing.assert_array_equal(call.pop("x"), X)
    np.testing.assert_array_equal(call.pop("y"), Y)
    ensemble, store = call.pop("ensemble"), call.pop("store")
    assert len(ensemble) == 2 and ensemble.votes == "mean_probability"
    assert store.root == directory / "audit" / "work"
    assert call.pop("bars")._show
    assert call.pop("cluster") is None
    assert call == {
        **{"eps": 0.125, "norm": "linf", "seed": 0},
        **{"batch_size": 250, "num_steps": 100, "num_queries": 5000},
        **{"num_draws": 1, "num_probes": 200, "time_budget": None},
    }
    names = ("audit.json", "cells.csv", "outcomes.npz", "report.html")
    document, outcomes = read_audit(directory / "audit")
    assert document["command"] == [
        *("advens-audit", "models/a.keras", "--data=my.npz"),
        *("models/b.keras", "--eps=1/8"),
    ]
    assert [m["file"] for m in document["members"]] == [
        *("models/a.keras", "models/b.keras")
    ]
    assert document["data"] == {"file": "my.npz", "sha256": checksum([X])}
    assert "comparison" not in document
    np.testing.assert_array_equal(outcomes["y"], Y)
    page = (directory / "audit" / "report.html").read_text()
    assert page == "As robust as a stand-in. 24 24 None"
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "clean accuracy   50.0 %  (95 % interval: 25.0 to 75.0 %)",
        "robust accuracy  50.0 %  (95 % interval: 25.0 to 75.0 %)",
        "As robust as a stand-in.",
        *(f"wrote audit/{name}" for name in names),
    ]
    assert err == ""


def test_options_reach_the_audit(directory, calls, capsys):
    classifier(shape=(28, 28, 1), classes=10).save("models/digits.keras")
    run(
        *("models/d*.keras", "--dataset=digits", "--images=9", "--eps=2", "--norm=l2"),
        *("--votes=majority", "--seed=3", "--batch_size=4", "--time_budget=1.5"),
        *("--out=there/it", "--work_dir=work", "--quiet"),
        *("--num_steps=5", "--num_queries=6", "--num_draws=7", "--num_probes=8"),
    )
    [call] = calls
    assert call["x"].shape == (9, 28, 28, 1) and call["y"].shape == (9,)
    assert call["ensemble"].votes == "majority"
    assert call["store"].root == directory / "work"
    assert not call["bars"]._show
    names = ("eps", "norm", "seed", "time_budget", *options.COUNTS)
    assert [call[name] for name in names] == [2, "l2", 3, 1.5, 4, 5, 6, 7, 8]
    document, _ = read_audit(directory / "there" / "it")
    assert document["data"]["file"] == "digits"
    assert document["members"][0]["file"] == "models/digits.keras"
    assert capsys.readouterr() == ("", "")


def test_on_a_cluster(directory, calls, monkeypatch):
    opened = []

    class Stub:
        def __init__(self, address, store):
            opened.append((address, store.root))

        def close(self):
            opened.append("closed")

    monkeypatch.setattr(client, "Cluster", Stub)
    run("models/a.keras", DATA, EPS, "--cluster=tcp://head:1", "--quiet")
    assert isinstance(calls[0]["cluster"], Stub)
    assert opened == [("tcp://head:1", directory / "audit" / "work"), "closed"]


def test_options_are_those_of_the_library():
    assert get_args(Votes) == options._VOTES
    _, values = options.parse(["advens-audit", DATA, EPS])
    defaults = inspect.signature(real_audit).parameters
    for name in ("norm", "seed", "time_budget", *options.COUNTS):
        assert values[name].value == defaults[name].default


def test_builder_in_the_working_directory(directory, calls, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", ".")])
    (directory / "mine.py").write_text(BUILDER)
    model = classifier()
    model.save_weights("a.weights.h5")
    run("a.weights.h5", "--builder=mine:build", "--data=my.npz", "--eps=.1", "--quiet")
    [member] = calls[0]["ensemble"].members
    for value, expected in zip(member.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)
    sys.modules.pop("mine")


def test_outputs_for_all_and_for_one(directory, calls):
    unclear = [layers.Dense(3, activation="relu"), layers.Dense(3, "tanh")]
    classifier(*unclear, ending="tanh").save("models/c.keras")
    flags = ("--data=my.npz", "--eps=.1", "--quiet")
    run("models/c.keras", "--outputs=logits", *flags)
    run("models/?.keras", "--outputs=,,logits", *flags)
    models = [
        *calls[0]["ensemble"].logits_models,
        calls[1]["ensemble"].logits_models[2],
    ]
    expected = keras.saving.load_model("models/c.keras")(X)
    for model in models:
        np.testing.assert_allclose(model(X), expected, rtol=1e-5)


def test_random_models_have_the_seed(directory, calls):
    classifier(layers.GaussianNoise(0.5)).save("models/n.keras")

    def draw(seed):
        run("models/n.keras", DATA, EPS, f"--seed={seed}", "--quiet")
        return np.array(calls[-1]["ensemble"].members[0](X, training=True))

    first = draw(1)
    np.testing.assert_array_equal(draw(1), first)
    assert not np.array_equal(draw(2), first)


def test_trust(directory, calls):
    classifier(layers.Lambda(lambda x: 2 * x)).save("models/a.keras")
    run("models/a.keras", "--data=my.npz", "--eps=.1", "--trust", "--quiet")
    assert len(calls) == 1


def test_scale_and_first_images(directory, calls):
    np.savez("bytes.npz", x_test=np.round(255 * X).astype("uint8"), y_test=Y)
    flags = ("--data=bytes.npz", "--scale=255", "--images=6", "--eps=.1", "--quiet")
    run("models/a.keras", *flags)
    np.testing.assert_allclose(calls[0]["x"], X[:6], atol=0.5 / 255 + 1e-6)


def test_compare(directory, calls):
    run("models/a.keras", "--data=my.npz", "--eps=.1", "--out=first", "--quiet")
    flags = ("--data=my.npz", "--eps=.2", "--compare=first/audit.json", "--quiet")
    run("models/b.keras", *flags)
    document, _ = read_audit(directory / "audit")
    assert document["comparison"] == {"file": "first/audit.json", "eps": [0.2, 0.1]}
    assert "'eps': [0.2, 0.1]" in (directory / "audit" / "report.html").read_text()


def test_help(capsys):
    run("--help")
    out, err = capsys.readouterr()
    assert out.startswith("`advens-audit`: how robust are these models")
    assert "--eps: Largest change" in out and "--[no]trust: " in out and err == ""


DATA, EPS = "--data=my.npz", "--eps=.1"
MODELS = "models/*.keras"


def save_model(*body, **kwargs):
    return lambda: classifier(*body, **kwargs).save("models/c.keras")


def save_data(**arrays):
    return lambda: np.savez("my.npz", **({"x": X, "y": Y} | arrays))


def write(path, content):
    return lambda: Path(path).write_bytes(content)


def save_cut():
    with open("models/a.keras", "rb+") as file:
        file.truncate(3000)


def save_weights():
    classifier().save_weights("a.weights.h5")


def save_other_audit():
    Path("audit.json").write_text("{}")
    np.savez("outcomes.npz", y=Y)


def save_other_audit_of(x, y):
    def save():
        document = dict.fromkeys(("settings", "members", "attacks"))
        document["data"] = {"sha256": checksum([x])}
        Path("audit.json").write_text(json.dumps(document))
        np.savez("outcomes.npz", y=y)

    return save


def nothing():
    pass


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        # Options.
        (nothing, [DATA, EPS], "must name at least one model"),
        (nothing, [MODELS, EPS], "Either --data=FILE.npz or --dataset=NAME must be g"),
        (nothing, [MODELS, DATA, "--dataset=digits", EPS], "Either --data=FILE.npz or"),
        (nothing, [MODELS, "--dataset=svhn", EPS], "--dataset=svhn: value should be"),
        (
            nothing,
            [MODELS, "--dataset=digits", "--scale=2", EPS],
            "--scale is for --da",
        ),
        (nothing, [MODELS, DATA], "--eps must be given, for example --eps=8/255"),
        (nothing, [MODELS, DATA, "--eps=0"], "`eps` must be > 0"),
        (nothing, [MODELS, DATA, "--eps=-.1"], "`eps` must be > 0"),
        (nothing, [MODELS, DATA, "--eps=much"], "it must be a number or a fraction"),
        (nothing, [MODELS, DATA, "--eps=1/0"], "it must be a number or a fraction"),
        (nothing, [MODELS, DATA, "--eps=nan"], "it must be a number or a fraction"),
        (nothing, [MODELS, DATA, "--eps=8"], "`eps` must be <= 1, .* --eps=8/255"),
        (nothing, [MODELS, DATA, "--eps=3.1", "--norm=l2"], "`eps` must be <= 3, "),
        (nothing, [MODELS, DATA, EPS, "--norm=l1"], "--norm=l1: value should be one"),
        (nothing, [MODELS, DATA, EPS, "--votes=max"], "--votes=max: value should be"),
        (nothing, [MODELS, DATA, EPS, "--outputs=odds"], "`outputs` must be one of"),
        (nothing, [MODELS, DATA, EPS, "--outputs=,,"], "Received: 3 for 2 members"),
        (nothing, [MODELS, DATA, EPS, "--outputs=logits"], "`outputs` must be 'probs'"),
        (nothing, [MODELS, DATA, EPS, "--time_budget=0"], "`time_budget` must be > 0"),
        (nothing, [MODELS, DATA, EPS, "--batch_size=0"], "`batch_size` must be an int"),
        (nothing, [MODELS, DATA, EPS, "--num_draws=0"], "`num_draws` must be an int"),
        (nothing, [MODELS, DATA, EPS, "--seed=-1"], "`seed` must be >= 0"),
        (nothing, [MODELS, DATA, EPS, f"--seed={2**32}"], "`seed` must be .* below"),
        (nothing, [MODELS, DATA, EPS, "--images=0"], "`images` must be an integer"),
        (nothing, [MODELS, DATA, EPS, "--images=25"], r"`images` must be in 1\.\.24"),
        (nothing, [MODELS, DATA, EPS, "--epss=1"], "Unknown command line flag 'epss'"),
        # Models.
        (nothing, ["models/*.h5", DATA, EPS], r"No file matches models/\*\.h5"),
        (nothing, ["models/c.keras", DATA, EPS], "Cannot read models/c.keras: No such"),
        (nothing, [MODELS, "models/a.keras", DATA, EPS], "Received twice: models/a"),
        (nothing, ["models", DATA, EPS], "A model must be a .keras or .h5 file"),
        (nothing, ["my.npz", DATA, EPS], "A model must be a .keras or .h5 file"),
        (
            write("m.pkl", pickle.dumps(1)),
            ["m.pkl", DATA, EPS],
            "pickled models are no",
        ),
        (
            write("m.keras", pickle.dumps(1)),
            ["m.keras", DATA, EPS],
            "m.keras is damage",
        ),
        (write("m.h5", pickle.dumps(1)), ["m.h5", DATA, EPS], "m.h5 is damaged, or no"),
        (save_cut, [MODELS, DATA, EPS], "models/a.keras is damaged"),
        (
            save_model(layers.Lambda(lambda x: 2 * x)),
            [MODELS, DATA, EPS],
            "models/c.keras holds Python code, .* pass --trust",
        ),
        (save_weights, ["a.weights.h5", DATA, EPS], "holds weights without a model"),
        (
            save_weights,
            ["a.weights.h5", DATA, EPS, "--builder=absent:build"],
            "`builder` must be module:function",
        ),
        (save_model(shape=(4, 3, 1)), [MODELS, DATA, EPS], "the same input shape and"),
        (
            save_model(classes=4),
            [MODELS, DATA, EPS],
            "same input shape and number of c",
        ),
        (save_model(ending="tanh"), [MODELS, DATA, EPS], "Cannot tell whether"),
        # Data.
        (nothing, [MODELS, "--data=none.npz", EPS], "Cannot read none.npz: No such f"),
        (nothing, [MODELS, "--data=models", EPS], "Cannot read models: Is a directory"),
        (
            write("my.npz", b"x" * 99),
            [MODELS, DATA, EPS],
            r"must be a whole \.npz file",
        ),
        (save_data(x=X.astype(object)), [MODELS, DATA, EPS], "arrays without pickles"),
        (
            lambda: np.savez("my.npz", x=X),
            [MODELS, DATA, EPS],
            "must hold the arrays x",
        ),
        (
            save_data(x=X[..., 0]),
            [MODELS, DATA, EPS],
            "`x` must be of shape .None, 3, ",
        ),
        (save_data(x=255 * X), [MODELS, DATA, EPS], "--scale=255 divides them by 255"),
        (save_data(x=X - 1), [MODELS, DATA, EPS], r"as floats in \[0, 1\]"),
        (save_data(x=X * np.nan), [MODELS, DATA, EPS], "without NaN"),
        (save_data(y=np.eye(3)[Y]), [MODELS, DATA, EPS], "not one-hot vectors"),
        (save_data(y=Y + 1), [MODELS, DATA, EPS], "`y` must be labels from 0 to 2. Re"),
        (save_data(y=Y - 1), [MODELS, DATA, EPS], "`y` must be labels from 0 to 2. Re"),
        # Other files.
        (nothing, [MODELS, DATA, EPS, "--out=my.npz"], "`out` must be a directory"),
        (nothing, [MODELS, DATA, EPS, "--out=my.npz/sub"], "`out` must be a directory"),
        (nothing, [MODELS, DATA, EPS, "--compare=none.json"], "Cannot read none.json"),
        (
            save_other_audit,
            [MODELS, DATA, EPS, "--compare=audit.json"],
            "audit.json and outcomes.npz beside it must be of an audit",
        ),
        (
            save_other_audit_of(X[:-1], Y[:-1]),
            [MODELS, DATA, EPS, "--compare=audit.json"],
            "audit.json must be an audit of the same images .* of 23 images, these are",
        ),
        (
            save_other_audit_of(X[::-1], Y),
            [MODELS, DATA, EPS, "--compare=audit.json"],
            "audit.json must be an audit of the same images",
        ),
        (
            save_other_audit_of(X, Y[::-1]),
            [MODELS, DATA, EPS, "--compare=audit.json"],
            "audit.json must be an audit of the same images",
        ),
    ],
)
def test_bad_input(directory, calls, capsys, prepare, arguments, message):
    prepare()
    capsys.readouterr()
    before = snapshot(directory)
    with pytest.raises(SystemExit) as exited:
        run(*arguments)
    assert exited.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert len(err) < 500
    assert re.search(message, err), err
    assert snapshot(directory) == before
    assert calls == []


class TensorFlowError(Exception):
    __module__ = "tensorflow.python.framework.errors_impl"


def test_a_full_disk_leaves_nothing(directory, calls, capsys, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from advens.storage import store

    monkeypatch.setattr(store.Store, "__init__", lambda self, root: None)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit):
        run("models/a.keras", DATA, EPS)
    err = capsys.readouterr().err
    assert "No space left on device. Free some space" in err and err.count("\n") == 1
    assert len(calls) == 1
    assert list((directory / "audit").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "Pass a smaller --batch_size"),
        (Exception("OOM when allocating tensor"), "Pass a smaller --batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out"), "Pass a smaller --batch_size"),
        (
            TensorFlowError("no kernel\nfor it"),
            r"TensorFlow cannot .* no kernel for it",
        ),
        (ValueError("members[0] returns NaN"), r"members\[0\] returns NaN"),
        (KeyboardInterrupt(), "Interrupted. The same command continues from here."),
    ],
)
def test_an_audit_that_fails(directory, capsys, monkeypatch, error, message):
    def audit(*args, **kwargs):
        raise error

    module = types.SimpleNamespace(audit=audit)
    monkeypatch.setitem(sys.modules, "advens.auditing.audit", module)
    with pytest.raises(SystemExit) as exited:
        run("models/a.keras", DATA, EPS)
    assert exited.value.code == 1
    err = capsys.readouterr().err
    assert re.search(message, err) and err.count("\n") == 1
    assert [path.name for path in (directory / "audit").iterdir()] == ["work"]


def test_a_bug_is_not_hidden(directory, monkeypatch):
    def audit(*args, **kwargs):
        raise KeyError("a bug")

    module = types.SimpleNamespace(audit=audit)
    monkeypatch.setitem(sys.modules, "advens.auditing.audit", module)
    with pytest.raises(KeyError, match="a bug"):
        run("models/a.keras", DATA, EPS)


def start(*arguments):
    command = [sys.executable, "-m", "advens.auditing", *arguments]
    # As a user has it: a level that is set is kept, with TensorFlow's notes.
    usual = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=usual
    )


@pytest.mark.slow
def test_in_a_process_of_its_own(directory):
    ran = start("models/*.keras", DATA, "--outputs=logits", EPS)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: `outputs` must be 'probs'")
    assert ran.stderr.count("\n") == 1
    ran = start("--help")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.slow
def test_a_killed_audit_continues(directory):
    def numbers(out):
        document, outcomes = read_audit(directory / out)
        for name in ("command", "created", "seconds"):
            del document[name]
        for attack in document["attacks"]:
            del attack["seconds"]
        return document, {name: array.tolist() for name, array in outcomes.items()}

    command = [
        *(sys.executable, "-m", "advens.auditing", "models/a.keras", "models/b.keras"),
        *(DATA, EPS, "--num_steps=20", "--num_queries=300", "--quiet"),
    ]
    killed = subprocess.Popen([*command, "--out=killed"])
    work = directory / "killed" / "work"
    while len(list(work.glob("*/*.npz"))) < 2:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert [path.name for path in (directory / "killed").iterdir()] == ["work"]
    done = {path: path.stat().st_mtime_ns for path in work.glob("*/*.npz")}
    subprocess.run([*command, "--out=killed"], check=True)
    assert (
        done.items() <= {p: p.stat().st_mtime_ns for p in work.glob("*/*.npz")}.items()
    )
    subprocess.run([*command, "--out=whole"], check=True)
    assert numbers("killed") == numbers("whole")


@pytest.mark.slow
def test_backends_that_are_not_there(directory, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    ran = start("models/*.keras", DATA, EPS)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "tensorflow or jax" in ran.stderr or "'tensorflow' or 'jax'" in ran.stderr
