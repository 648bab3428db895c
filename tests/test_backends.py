"""What holds across Keras's backends, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pandas as pd
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "jax",
        reason="once is enough: each backend has a process of its own",
    ),
]
ROOT = Path(__file__).parents[1]


def run(*command, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_backends_judge_the_same_weights_alike(tmp_path):
    arguments = ("--num_members=2", "--epochs=1", "--rounds=1")
    script, out = ROOT / "benchmarks/backends.py", tmp_path / "out.json"
    run(script, f"--out={out}", *arguments, KERAS_BACKEND="tensorflow")
    found = json.loads(out.read_text())
    # FGSM and BIM through each member by two losses, and through the ensemble in
    # four ways.
    assert len(found["agreement"]) == 16
    assert min(found["agreement"].values()) >= 0.998


WITHOUT_TENSORFLOW = """
import runpy, sys
sys.modules["tensorflow"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("rows", "formula"),
    [("bagging+def_dist,adv_train", "printed"), ("bagging+def_dist", "papernot")],
)
def test_jax_needs_no_tensorflow(tmp_path, rows, formula):
    run(
        *("-c", WITHOUT_TENSORFLOW, ROOT / "reproduce/table4.py"),
        *(f"--rows={rows}", "--num_members=2", "--stack=2"),
        *(f"--distillation={formula}", "--epochs=1"),
        *("--train_images=130", "--test_images=10"),
        *(f"--out_dir={tmp_path}", f"--work_dir={tmp_path / 'work'}"),
    )
    table = pd.read_csv(tmp_path / "table4_digits.csv")
    assert len(table) == len(rows.split(","))
    manifest = json.loads((tmp_path / "table4_digits.json").read_text())
    assert manifest["hardware"]["backend"] == "jax"
    assert manifest["flags"]["stack"] == 2
