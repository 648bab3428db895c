import json
import sys

import pytest

from advens.strauss2017.reporting.manifest import (
    manifest,
    read_manifest,
    with_earlier_seconds,
)

SAME = ("settings", "attacks", "seeds", "data", "hardware")


def test_layout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = str(tmp_path / "reproduce" / "table2.py")
    monkeypatch.setattr(sys, "argv", [script, "--dataset=mnist", "--rows=a b"])
    record = manifest(backend="jax", devices=["cuda:0"], flags={"seed": 0}, seeds=[1])
    assert list(record) == ["command", "versions", "hardware", "flags", "seeds"]
    assert (
        record["command"] == "python reproduce/table2.py --dataset=mnist '--rows=a b'"
    )
    assert list(record["versions"])[:3] == ["python", "advens", "keras"]
    assert list(record["hardware"]) == [
        *("backend", "devices", "processor", "cores", "system")
    ]
    assert record["hardware"]["backend"] == "jax"
    assert record["hardware"]["devices"] == ["cuda:0"]
    assert record["hardware"]["cores"] >= 1
    assert json.loads(json.dumps(record)) == record


def test_folders_outside_the_working_directory_are_not_published(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/home/me/secret/table2.py"])
    assert manifest(backend="jax", devices=[])["command"] == "python table2.py"


def test_read(tmp_path):
    path = tmp_path / "t.json"
    assert read_manifest(path) == {}
    path.write_text('{"a": 1}')
    assert read_manifest(path) == {"a": 1}
    path.write_text("{")
    with pytest.raises(ValueError, match="t.json is not a complete manifest"):
        read_manifest(path)


@pytest.mark.parametrize("key", SAME)
def test_times_are_kept_from_an_earlier_run_of_the_same_work_only(key):
    record = dict.fromkeys(SAME, (1,)) | {
        "seconds_per_stage": {"train": 2.0, "attack": 0.5}
    }
    seconds = {"train": 1.0, "attack": 3.0, "of no row of this run": 4.0}
    earlier = json.loads(json.dumps(record | {"seconds_per_stage": seconds}))
    longest = record | {"seconds_per_stage": {"train": 2.0, "attack": 3.0}}
    assert with_earlier_seconds(record, earlier) == longest
    assert with_earlier_seconds(record, earlier | {key: [2]}) == record
    assert with_earlier_seconds(record, {}) == record
