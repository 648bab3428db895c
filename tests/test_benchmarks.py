"""The benchmarks, as a user calls them, in their shortest form."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from numpy.testing import assert_allclose

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the peers need TensorFlow"
)


def record(script, out, *arguments):
    """Return what a benchmark writes."""
    command = [sys.executable, BENCHMARKS / f"{script}.py", f"--out={out}", *arguments]
    subprocess.run([*command, "--rounds=1"], check=True)
    return json.loads(out.read_text())


ATTACKS = ("--dataset=digits", "--num_members=2", "--train_images=640")


def test_attacks(tmp_path):
    found = record("attacks", tmp_path / "out.json", *ATTACKS, "--num_images=8")
    assert len(found["contenders"]) == 5
    for results in found["contenders"].values():
        advens = results["advens"]
        for result in results.values():
            assert abs(result["robust_accuracy"] - advens["robust_accuracy"]) <= 0.15
            want = advens["images_per_second"][0] / result["images_per_second"][0]
            assert_allclose(result["ratios"], want, rtol=1e-6)
        by_peers = results.keys() - {"advens", "advens, bfloat16"}
        assert {"tf.function by hand", "ART"} <= by_peers
        for contender in by_peers:
            assert results[contender]["identical_pixels"] > 0.9
        assert results["advens, bfloat16"]["changed_signs"] < 0.2


def test_attack_cells(tmp_path):
    arguments = (*ATTACKS, "--num_images=4", "--cells")
    found = record("attacks", tmp_path / "out.json", *arguments)
    # 8 steps by Grad. 1, Grad. 2, Grad. 2 re-predicted and the ensemble's gradient;
    # clean images, and those of FGSM and BIM, by 2 single members and by 3 ensembles.
    passes = {"gradient pass": 4 * 2 * 8, "forward pass": 2 * (1 + 2 * (2 + 3))}
    assert found["passes"] == passes
    seconds = {name: took for name, [took] in found["seconds"].items()}
    needed = sum(passes[name] * seconds[name] for name in passes)
    assert_allclose(found["ratios"], seconds["cells"] / needed, rtol=1e-6)
