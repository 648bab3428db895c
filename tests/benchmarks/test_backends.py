"""The benchmark that compares Keras's backends, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.release
@pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="once is enough: each backend has a process of its own",
)
def test_backends_judge_the_same_weights_alike(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, ROOT / "benchmarks/backends.py", f"--out={out}"]
    subprocess.run(
        [*command, "--num_members=2", "--epochs=1", "--rounds=1"],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=True,
        timeout=600,
    )
    agreement = json.loads(out.read_text())["agreement"]
    # FGSM and BIM along Grad. 1 of each member with two losses, and along four
    # gradients of the ensemble.
    assert len(agreement) == 2 * (2 * 2 + 4)
    assert min(agreement.values()) >= 0.998
