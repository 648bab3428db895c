import errno
import os

import pytest

from advens.storage.files import TEMPORARY, atomic, explained, write_all


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.rglob("*.*")}


def test_atomic_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "not" / "yet" / "there.csv"
    with atomic(str(path)) as handle:
        handle.write(b"first")
        handle.flush()
        [temporary] = path.parent.iterdir()
        assert temporary.name.startswith("there.csv.")
        assert temporary.suffix == TEMPORARY
    assert contents(tmp_path) == {"there.csv": b"first"}
    with atomic(path) as handle:
        handle.write(b"second")
        assert path.read_bytes() == b"first"
    assert contents(tmp_path) == {"there.csv": b"second"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic(path) as handle:
        handle.write(b"new")
        raise error
    assert contents(tmp_path) == {"table.csv": b"old"}


def test_write_all(tmp_path):
    paths = write_all(tmp_path / "results", {"b.csv": b"1", "a.json": b"{}"})
    assert paths == [tmp_path / "results" / name for name in ("b.csv", "a.json")]
    assert contents(tmp_path) == {"b.csv": b"1", "a.json": b"{}"}


@pytest.mark.parametrize("old", [{}, {"a.x": b"old a", "c.x": b"old c"}])
def test_write_all_writes_all_or_none(tmp_path, monkeypatch, old):
    def full_at_the_third(handle):
        synced.append(handle)
        if len(synced) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    synced = []
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(os, "fsync", full_at_the_third)
    with pytest.raises(OSError, match="Cannot write") as error:
        write_all(tmp_path, {f"{name}.x": b"new" for name in "abcd"})
    assert error.value.strerror.startswith(f"Cannot write {tmp_path / 'c.x'}: No space")
    assert contents(tmp_path) == old


def test_write_all_names_the_first_file_last(tmp_path, monkeypatch):
    def replace(source, target):
        assert len(list(tmp_path.glob(f"*{TEMPORARY}"))) == 3 - len(named)
        named.append(target.name)
        rename(source, target)

    named, rename = [], os.replace
    monkeypatch.setattr(os, "replace", replace)
    write_all(tmp_path, dict.fromkeys("abc", b""))
    assert named == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EROFS, "Allow access to it"),
        (errno.ENOTDIR, "Move the file that is in its way"),
        (errno.EIO, "Repair it"),
    ],
)
def test_errors_say_what_to_do(tmp_path, monkeypatch, code, advice):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    path = tmp_path / "table.csv"
    with pytest.raises(OSError, match="Cannot write") as error, atomic(path):
        pass
    assert error.value.errno == code
    assert str(error.value).endswith(
        f"Cannot write {path}: {os.strerror(code)}. {advice} or use another directory"
    )
    assert contents(tmp_path) == {}


def test_an_error_without_a_number_is_an_input_output_error(tmp_path):
    error = explained(OSError("the cable is out"), "read", tmp_path)
    assert error.errno == errno.EIO
    assert f"Cannot read {tmp_path}: the cable is out. Repair it" in str(error)
