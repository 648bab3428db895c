"""How scripts start and how they fail."""

import subprocess
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver

import script

SCRIPTS = Path(script.__file__).parent


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--dataset=svhn", "flag --dataset=svhn: must be digits, mnist, cifar10"),
        ("--epochs=ten", "flag --epochs=ten"),
        ("--fgsm_eps=-0.1", "flag --fgsm_eps=-0.1: -0.1 is not a non-negative number"),
        ("--epoch=1", "Unknown command line flag 'epoch'"),
        ("--columns=some", "flag --columns=some: value should be one of <default|all>"),
        ("mnist", "Arguments must be flags, such as --dataset=mnist. Received: mnist"),
        ("--methods=none", "`methods` must be some of rand_ini,mix_mod"),
    ],
)
def test_errors_are_one_line(start, directory, flag, message):
    process = start("table2", flag, cwd=directory)
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_help_needs_no_backend():
    code = (
        "import sys, runpy; path = sys.argv[1]; sys.argv = [path, '--help']\n"
        f"sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "try: runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit: print({'keras', 'pandas', 'rich'} & set(sys.modules))"
    )
    for name in ("table2", "table4", "anomaly", "noise_sweep", "figure1", "figure2"):
        command = [sys.executable, "-c", code, SCRIPTS / f"{name}.py"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "--[no]" in ran.stdout or "--datasets" in ran.stdout
        assert "--[no]quiet" in ran.stdout and "--[no]verbose" in ran.stdout
        assert ran.stdout.endswith("set()\n"), ran.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "Interrupted. The same command continues from here"),
        (RuntimeError("No network\nstays alive"), "No network stays alive"),
    ],
)
def test_what_ends_a_run_is_told_in_one_line(monkeypatch, capsys, error, message):
    def ended():
        raise error

    monkeypatch.setattr(sys, "argv", ["table2.py"])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as exited:
        script.main(ended)
    assert exited.value.code == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_every_script_is_short():
    for path in SCRIPTS.glob("*.py"):
        text = path.read_text()
        if "script.main(" in text:
            assert len(text.splitlines()) <= 100, path.name
