"""Settings of a process, each tested in a new process, as they last until its end."""

import os
import platform
import resource
import subprocess
import sys

import keras
import pytest

from advens import process

TENSORFLOW = keras.backend.backend() == "tensorflow"


def run(code, **environment):
    # This process has set the variable for the processes that it starts.
    inherited = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


@pytest.mark.skipif(
    not TENSORFLOW or (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="for TensorFlow on x86",
)
@pytest.mark.parametrize(
    ("environment", "used"), [({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False)]
)
def test_use_onednn(environment, used):
    code = """
from advens import process
print(process.use_onednn())
from advens import backend
print(backend.uses_onednn(), process.use_onednn())
"""
    assert run(code, **environment).split() == ["True", str(used), "False"]


@pytest.mark.skipif(
    not (TENSORFLOW and process.keep_memory()), reason="needs glibc and TensorFlow"
)
def test_keep_memory_asks_the_system_for_no_page_twice():
    out = run("""
import resource
from advens import process
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4): b"1" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
size = 2**26
print(faults())
process.keep_memory()
b"1" * size
print(faults())
""")
    without, kept = map(int, out.split())
    pages = 4 * 2**26 // resource.getpagesize()
    assert kept < pages / 100 < pages / 2 < without


def test_keep_memory_leaves_other_systems_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not process.keep_memory()


@pytest.mark.skipif(TENSORFLOW, reason="for the JAX backend")
def test_keep_memory_leaves_jax_alone():
    assert not process.keep_memory()


@pytest.mark.skipif(not TENSORFLOW, reason="for the TensorFlow backend")
def test_threads_can_be_limited_only_before_the_first_computation():
    out = run("""
import tensorflow as tf
from advens import backend
num_threads = tf.config.threading.get_intra_op_parallelism_threads
backend.limit_threads(3)
print(num_threads())
tf.zeros(2) + 1
backend.limit_threads(4)
print(num_threads())
""")
    assert out.split() == ["3", "3"]
