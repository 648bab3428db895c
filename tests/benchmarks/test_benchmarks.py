"""The benchmarks, as a user calls them, in their shortest form."""

import functools
import importlib.util
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from advens.models import convnet
from advens.models.architecture import Architecture
from advens.models.logits import logits_model
from advens.strauss2017.networks import TABLE1, TABLE3
from advens.training.members import default_jobs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DTYPES = ("float32", "bfloat16")

TENSORFLOW = keras.backend.backend() == "tensorflow"

release = pytest.mark.release
of_tensorflow = pytest.mark.skipif(not TENSORFLOW, reason="the peers need TensorFlow")


def record(script, out, *arguments):
    """Return the record that a benchmark writes."""
    command = [sys.executable, BENCHMARKS / f"{script}.py", f"--out={out}", *arguments]
    subprocess.run([*command, "--rounds=1"], check=True)
    return json.loads(out.read_text())


ATTACKS = ("--dataset=digits", "--num_members=2", "--train_images=640")


@release
@of_tensorflow
def test_attacks(tmp_path):
    written = record("attacks", tmp_path / "out.json", *ATTACKS, "--num_images=8")
    assert len(written["contenders"]) == 5
    for results in written["contenders"].values():
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


@release
@of_tensorflow
def test_attack_cells(tmp_path):
    arguments = (*ATTACKS, "--num_images=4", "--cells")
    written = record("attacks", tmp_path / "out.json", *arguments)
    # FGSM and BIM take 8 steps, as they share the first one, along six gradients of two
    # members: Grad. 1, Grad. 2, Grad. 2 re-predicted and the ensemble gradient; Grad. 1
    # and Grad. 2 of the exact loss. Both members judge the clean images, and those of
    # two attacks along eight gradients, as Grad. 1 stands for two.
    passes = {"gradient pass": 6 * 2 * 8, "forward pass": 2 * (1 + 2 * 8)}
    assert written["passes"] == passes
    seconds = {name: value for name, [value] in written["seconds"].items()}
    needed = sum(passes[name] * seconds[name] for name in passes)
    assert_allclose(written["ratios"], seconds["cells"] / needed, rtol=1e-6)


@release
@of_tensorflow
def test_audit(tmp_path):
    arguments = (
        *("--dataset=digits", "--num_members=2", "--epochs=1", "--num_images=30"),
        *("--num_steps=3", "--num_queries=3", "--contenders=audit,advens,ART"),
    )
    outcomes = tmp_path / "outcomes"
    places = (f"--work_dir={tmp_path / 'work'}", f"--save={outcomes}")
    written = record("audit", tmp_path / "out.json", *arguments, *places)
    accuracies = written["robust_accuracy"]["rand_ini"]
    assert list(accuracies) == ["audit", "advens", "ART"]
    assert list(accuracies["ART"]) == ["none", "APGD-CE", "APGD-DLR", "Square"]
    for name, of_contender in accuracies.items():
        values = list(of_contender.values())
        assert values == sorted(values, reverse=True)
        assert values[0] == accuracies["audit"]["none"]
        with np.load(outcomes / f"digits-rand_ini-linf-0.1-{name}.npz") as saved:
            for attack, value in of_contender.items():
                assert saved[attack].mean() == value
            assert len(saved["seconds"]) == len(values)
    assert accuracies["audit"]["Square"] < accuracies["audit"]["none"]


SHORT = ("--batch_size=8", "--steps=2")


@release
def test_training(tmp_path):
    arguments = (*SHORT, "--matrix_size=64", *(["--nobfloat16"] if TENSORFLOW else []))
    written = record("training", tmp_path / "out.json", *arguments)
    dtypes = ("float32",) if TENSORFLOW else DTYPES
    contenders = {*(f"advens, {d}" for d in dtypes), "keras fit, float32"}
    if TENSORFLOW:
        kinds = ("tuned", "XLA", "no XLA")
        contenders |= {f"keras fit, {kind}, float32" for kind in kinds}
        if (n_jobs := default_jobs()) > 1:
            contenders.add(f"advens, {n_jobs} processes, float32")
        left_out = ["advens, stacked: the backend is not JAX"]
    else:
        contenders.add("advens, stacked, float32")
        left_out = ["other rows of keras fit: the backend is not TensorFlow"]
    if importlib.util.find_spec("torch"):
        contenders |= {f"PyTorch, {d}" for d in dtypes}
        if TENSORFLOW:
            contenders.add("PyTorch, tuned, float32")
    else:
        left_out.append("PyTorch: not installed")
    if TENSORFLOW:
        left_out.append("bfloat16: --nobfloat16")
    assert written["left_out"] == left_out
    for name in ("samples_per_second", "ratios", "shares"):
        assert written[name].keys() == contenders
        assert all(value > 0 for [value] in written[name].values())
    speeds = {name: speed for name, [speed] in written["samples_per_second"].items()}
    for name, ratio in written["ratios"].items():
        assert_allclose(ratio, speeds["advens, float32"] / speeds[name], rtol=1e-6)
    for name, share in written["shares"].items():
        rate = written["matrix_product_flops_per_second"][name.split()[-1]]
        want = speeds[name] * written["step_flops"] / max(rate)
        assert_allclose(share, want, rtol=1e-6)


@release
@pytest.mark.skipif(TENSORFLOW, reason="it measures the JAX backend")
def test_gpu(tmp_path):
    only = "^product|stack of 2, XLA, float32|batch 4, float32"
    sizes = ("--train_batch_size=8", "--steps=2", "--stacks=2", "--num_members=2")
    arguments = (*sizes, "--batch_sizes=4", "--matrix_size=64", f"--only={only}")
    written = record("gpu", tmp_path / "out.json", *arguments)
    assert len(written["found"]) == 5 and not written["failed"]
    for name, numbers in written["found"].items():
        assert all(value > 0 for value in numbers.values())
        assert ("share" in numbers) == (not name.startswith("product"))
    late = record("gpu", tmp_path / "late.json", *arguments, "--minutes=0")
    assert not late["found"]
    assert set(late["failed"]) == set(written["found"])


@release
@of_tensorflow
def test_scaling(tmp_path):
    sizes = {
        "num_members": [1, 2],
        "num_images": [4, 8],
        "num_steps": [1, 2],
        "batch_size": [2, 4],
        "n_jobs": [1, 2],
    }
    arguments = [f"--{name}={a},{b}" for name, (a, b) in sizes.items()]
    arguments += ["--train_members=2", "--train_images=64", "--epochs=1"]
    written = record("scaling", tmp_path / "out.json", *arguments)
    for name, values in sizes.items():
        sweep = written[name]
        assert sweep["values"] == values
        [[first], [second]] = sweep["seconds"]
        assert min(first, second) > 0
        # The units double; with twice the processes, each has half of the work.
        ratio = 0.5 if name == "n_jobs" else 2
        want = [[1], [second / first / ratio]]
        assert_allclose(sweep["relative"], want, rtol=1e-6)
        n = 1 if name == "n_jobs" else values[0]
        line = sweep["slope"] * np.array([n, ratio * n]) + sweep["constant"]
        assert_allclose(line, [first, second], rtol=1e-6)


@release
def test_adversarial_training(tmp_path):
    written = record("adversarial_training", tmp_path / "out.json", *SHORT)
    steps = {name: value for name, [value] in written["milliseconds_per_step"].items()}
    assert_allclose(written["ratios"], steps["adversarial"] / steps["plain"], rtol=1e-6)


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def clock(benchmarks, monkeypatch):
    """Return the clock of both modules, which stands still until a test moves it."""
    import common
    import trainers

    clock = SimpleNamespace(now=0.0)
    still = SimpleNamespace(perf_counter=lambda: clock.now)
    for module in (common, trainers):
        monkeypatch.setattr(module, "time", still)
    monkeypatch.setattr(common, "FLAGS", SimpleNamespace(rounds=2))
    return clock


def test_fit_is_timed_to_the_end_of_its_epoch(clock):
    from trainers import timed_fit

    def fit(x, y, *, verbose, callbacks):
        clock.now += 3
        for callback in callbacks:
            callback.on_epoch_end(0, {})
        clock.now += 5

    assert timed_fit(SimpleNamespace(fit=fit), None, None) == timedelta(seconds=3)


def test_a_call_is_timed_unless_it_says_how_long_it_took(clock):
    from common import in_turns

    def call(result):
        clock.now += 2
        return result

    results = {"number": 7.0, "nothing": None, "time": timedelta(seconds=1)}
    calls = {name: functools.partial(call, value) for name, value in results.items()}
    seconds = {name: array.tolist() for name, array in in_turns(calls).items()}
    assert seconds == {"number": [2, 2], "nothing": [2, 2], "time": [1, 1]}


def test_step_flops(benchmarks):
    from arithmetic import step_flops

    # Multiply-adds: 3x3 convolutions with outputs of 26x26 and 24x24 pixels, and 12x12
    # pixels that are flattened.
    first = 26 * 26 * 9 * 1 * 32
    forward = first + 24 * 24 * 9 * 32 * 32 + 12 * 12 * 32 * 128 + 128 * 10
    assert step_flops(TABLE1) == 2 * (3 * forward - first) == 36_175_872
    first = 32 * 32 * 9 * 3 * 32
    forward = (
        first
        + 32 * 32 * 9 * 32 * 32
        + 16 * 16 * 9 * (32 * 64 + 64 * 64)
        + 8 * 8 * 9 * (64 * 128 + 128 * 128)
        + 4 * 4 * 128 * 512
        + 512 * 10
    )
    assert step_flops(TABLE3) == 2 * (3 * forward - first) == 236_353_536


@of_tensorflow
@pytest.mark.parametrize("logits", ["relu", "linear", "dense"])
def test_torch_networks_are_those_of_keras(benchmarks, logits):
    torch = pytest.importorskip("torch")
    from torch_networks import build, copy_weights

    architecture = Architecture(
        input_shape=(9, 14, 2),
        blocks=((3, 4), (5,)),
        block_dropout=(0.0, 0.2),
        units=6,
        padding="same",
        logits=logits,
        num_classes=3,
    )
    source = convnet.build(architecture, seed=0)
    # So that the logits are not zero behind a ReLU, whatever the weights are.
    source.set_weights([w + 0.1 for w in source.get_weights()])
    network = build(architecture)
    copy_weights(source, network)
    x = np.random.default_rng(1).random((4, 9, 14, 2), np.float32)
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(x).movedim(-1, 1)).numpy()
    want = logits_model(source)(x)
    assert (logits != 0).any()
    assert_allclose(logits, want, rtol=1e-5, atol=1e-6)
