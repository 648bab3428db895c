"""The files of an audit."""

import csv
import errno
import io
import json
import os

import numpy as np
import pytest

from advens.auditing.files import read_audit, write_audit

DOCUMENT = {
    "settings": {"eps": 0.1},
    "data": {"sha256": "ab"},
    "members": [{"name": "é"}],
    "attacks": [
        {
            "name": "PGD, ensemble gradient",
            "broken": 2,
            "accuracy_after": {"value": 0.5, "low": 0.25, "high": 0.75},
            "done": True,
        },
        {
            "name": "Square",
            "broken": 0,
            "accuracy_after": {"value": 0.5, "low": 0.25, "high": 0.75},
            "done": False,
        },
    ],
}
OUTCOMES = {"y": np.arange(3), "smallest_eps": np.array([0.1, np.inf], "float32")}


def write(directory, document=DOCUMENT, page="<p>é"):
    return write_audit(directory, document, OUTCOMES, page)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_files(tmp_path):
    paths = write(tmp_path / "audit")
    assert [path.name for path in paths] == [
        *("audit.json", "cells.csv", "outcomes.npz", "report.html")
    ]
    assert names(tmp_path / "audit") == sorted(path.name for path in paths)
    document, cells, outcomes, page = (path.read_bytes() for path in paths)
    assert json.loads(document) == DOCUMENT
    assert page.decode() == "<p>é"
    rows = list(csv.DictReader(io.StringIO(cells.decode())))
    assert rows[0] == {
        "name": "PGD, ensemble gradient",
        "broken": "2",
        "done": "True",
        "accuracy_after_value": "0.5",
        "accuracy_after_low": "0.25",
        "accuracy_after_high": "0.75",
    }
    assert [row["name"] for row in rows] == ["PGD, ensemble gradient", "Square"]
    with np.load(io.BytesIO(outcomes), allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["smallest_eps", "y"]
        np.testing.assert_array_equal(arrays["smallest_eps"], OUTCOMES["smallest_eps"])


def test_what_is_written_is_read(tmp_path):
    write(tmp_path)
    for path in (tmp_path, tmp_path / "audit.json"):
        document, outcomes = read_audit(path)
        assert document == DOCUMENT
        np.testing.assert_array_equal(outcomes["y"], OUTCOMES["y"])


def test_the_same_audit_has_the_same_bytes(tmp_path):
    first = [path.read_bytes() for path in write(tmp_path)]
    assert first == [path.read_bytes() for path in write(tmp_path)]


@pytest.mark.parametrize("failing", range(4))
def test_a_full_disk_leaves_the_earlier_audit(tmp_path, monkeypatch, failing):
    def full(handle):
        written.append(handle)
        if len(written) > failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written = []
    before = {path: path.read_bytes() for path in write(tmp_path)}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left.* Free some space"):
        write(tmp_path, document=DOCUMENT | {"seconds": 1}, page="new")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_document_that_is_no_json_leaves_no_file(tmp_path):
    for value in (float("nan"), np.float32(1), object()):
        with pytest.raises((TypeError, ValueError)):
            write(tmp_path, document=DOCUMENT | {"seconds": value})
    assert names(tmp_path) == []


def test_other_files_are_no_audit(tmp_path):
    write(tmp_path)
    path = tmp_path / "audit.json"
    whole = path.read_bytes()
    for damaged in (whole[:-3], b"{}", b"[1]", b"\xff", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path} and outcomes.npz beside it"):
            read_audit(path)
    path.write_bytes(whole)
    outcomes = tmp_path / "outcomes.npz"
    outcomes.write_bytes(outcomes.read_bytes()[:-5])
    with pytest.raises(ValueError, match="must be of an audit"):
        read_audit(path)
    outcomes.unlink()
    with pytest.raises(OSError, match=f"Cannot read {outcomes}: No such file"):
        read_audit(path)
    with pytest.raises(OSError, match="Cannot read .*none.json: No such file"):
        read_audit(tmp_path / "none.json")
