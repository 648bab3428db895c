"""On Keras's JAX backend, the scripts need no TensorFlow."""

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
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="it is about JAX"),
]
ROOT = Path(__file__).parents[1]

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
    script = ROOT / "reproduce/table4.py"
    arguments = [
        *(f"--rows={rows}", "--num_members=2", "--stack=2"),
        *(f"--distillation={formula}", "--epochs=1"),
        *("--train_images=130", "--test_images=10"),
        *(f"--out_dir={tmp_path}", f"--work_dir={tmp_path / 'work'}"),
    ]
    subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, script, *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{script.parent}"},
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    table = pd.read_csv(tmp_path / "table4_digits.csv")
    assert len(table) == len(rows.split(","))
    manifest = json.loads((tmp_path / "table4_digits.json").read_text())
    assert manifest["hardware"]["backend"] == "jax"
    assert manifest["flags"]["stack"] == 2
