"""What is released: one version everywhere, and archives that hold what they should."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import advens

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta as b; b.build_sdist('d'); b.build_wheel('d')"


def test_the_version_is_that_of_the_changelog_and_of_the_citation():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    version, date = re.search(r"^## \[(.+)\] - (.+)$", changelog, re.MULTILINE).groups()
    assert version == advens.__version__
    citation = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {version}" in citation
    assert f"date-released: {date}" in citation


@pytest.mark.slow
def test_the_wheel_holds_advens_and_the_source_archive_all(tmp_path):
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    files = set(listed.stdout.splitlines())
    for name in files:
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    (tmp_path / "d").mkdir()
    subprocess.run([sys.executable, "-c", BUILD], cwd=tmp_path, check=True)

    name = f"advens-{advens.__version__}"
    with tarfile.open(tmp_path / "d" / f"{name}.tar.gz") as archive:
        assert {f"{name}/{file}" for file in files} <= set(archive.getnames())
    with zipfile.ZipFile(tmp_path / "d" / f"{name}-py3-none-any.whl") as wheel:
        about = f"{name}.dist-info/"
        held = {file for file in wheel.namelist() if not file.startswith(about)}
        metadata = wheel.read(f"{about}METADATA").decode()
    assert held == {file for file in files if file.startswith("advens/")}
    assert f"\nVersion: {advens.__version__}\n" in metadata
