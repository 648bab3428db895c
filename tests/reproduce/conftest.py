"""Fixtures that call a script as a user does, in an empty directory of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver

import run_flags
from advens import backend

SCRIPTS = Path(run_flags.__file__).parent
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "ADVENS_DATA_DIR"}


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Work in an empty directory and return it."""
    monkeypatch.chdir(tmp_path)
    # It cannot be undone, and other tests are random.
    monkeypatch.setattr(backend, "make_deterministic", lambda: None)
    return tmp_path


@pytest.fixture
def call():
    """Return a function that calls a script's function with flags."""

    def call_with_flags(function, *arguments):
        with flagsaver.flagsaver():
            run_flags.FLAGS(["script", *arguments])
            function()

    return call_with_flags


@pytest.fixture
def start():
    """Return a function that starts a script in a process."""

    def start_process(script, *arguments, cwd):
        return subprocess.Popen(
            [sys.executable, SCRIPTS / f"{script}.py", *arguments],
            cwd=cwd,
            env=ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start_process
