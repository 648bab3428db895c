import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advens.storage import addresses, files, store
from advens.storage.addresses import digest
from advens.storage.store import (
    DamagedArtefactWarning,
    Store,
    VanishedStoreWarning,
)

# Damage fails a test that does not expect it.
pytestmark = pytest.mark.filterwarnings(
    "error::advens.storage.store.DamagedArtefactWarning"
)

SPEC = {"dataset": "mnist", "eps": 0.3, "members": [1, 2]}
OLD = {"w": np.arange(5000.0), "step": np.array(3)}
NEW = {"w": -OLD["w"], "step": np.array(4)}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "not" / "yet" / "there"


@pytest.fixture
def artefacts(root):
    return Store(root)


def assert_same(got, want):
    assert set(got) == set(want)
    for name, array in want.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
        assert_array_equal(got[name], array)


def file_names(root):
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_round_trip(root, artefacts):
    dtypes = ["i1", "u1", "<i8", ">i4", "<f2", ">f4", "<f8", "<c16", "M8[ms]", "V6"]
    rng = np.random.default_rng(0)
    arrays = {d: np.frombuffer(rng.bytes(96), d).reshape(2, -1) for d in dtypes} | {
        "bool": np.array([True, False]),
        "text": np.array([["ü", "\0x"]]),
        "scalar": np.array(0.1),
        "empty": np.zeros((0, 4, 1), np.float32),
        "column order, strided": np.asfortranarray(rng.random((6, 4)))[::2],
        "record": np.array([(1, [2, 3])], [("n", "i4"), ("p", "f8", (2,))]),
        "a/b": np.array([1]),
        "mean.npy": np.array([2]),
        "": np.array([3]),
    }
    assert artefacts.load("outcomes", SPEC) is None
    assert not artefacts.has("outcomes", SPEC)
    path = artefacts.save("outcomes", SPEC, arrays)
    assert path == root / "outcomes" / f"{digest(SPEC)}.npz"
    assert Store(str(root)).has("outcomes", SPEC)
    assert_same(Store(str(root)).load("outcomes", SPEC), arrays)
    with np.load(path) as file:
        assert_array_equal(file["record"], arrays["record"])
    assert artefacts.load("outcomes", {}) is artefacts.load("weights", SPEC) is None
    before = path.read_bytes()
    assert artefacts.save("outcomes", dict(reversed(SPEC.items())), arrays) == path
    assert path.read_bytes() == before
    artefacts.save("outcomes", SPEC, NEW)
    assert_same(artefacts.load("outcomes", SPEC), NEW)
    assert file_names(root) == [path.name]


def test_the_root_does_not_follow_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("here")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    store.save("member", {"a": 1}, {"b": np.zeros(2)})
    assert list((tmp_path / "here" / "member").glob("*.npz"))
    assert Store(store.root).load("member", {"a": 1}) is not None


def test_digest(monkeypatch):
    spec = {"a": 1, "b": {"c": [1, 2], "d": None}}
    name = digest(spec)
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert digest({"b": {"d": None, "c": (1, 2)}, "a": 1}) == name
    values = [1, 1.0, True, "1", [1], [[1]], {"a": 1}, None, 0.1, np.nextafter(0.1, 1)]
    assert len({digest({"a": value}) for value in values}) == len(values)
    assert len({digest({}), digest({"a": {}}), digest({"a": []})}) == 3
    monkeypatch.setattr(addresses, "SCHEMA", addresses.SCHEMA + 1)
    assert digest(spec) != name


@pytest.mark.parametrize(
    "value", [np.nan, [-np.inf], {1: 2}, [{"b": ({None: 1},)}], np.zeros(2), {1, 2}]
)
def test_spec_that_json_cannot_hold(artefacts, value):
    for call in (digest, lambda spec: artefacts.save("outcomes", spec, OLD)):
        with pytest.raises(TypeError, match="`spec` must be a mapping that JSON can"):
            call({"a": value})
        with pytest.raises(TypeError, match="keys must be strings"):
            call({1: 2})


@pytest.mark.parametrize("kind", ["", ".", "..", "a/b", "../a", "/a", "-a", "a\n"])
def test_bad_kind(root, artefacts, kind):
    calls = (
        artefacts.load,
        artefacts.has,
        artefacts.load_checkpoint,
        artefacts.steps_done,
    )
    for call in (*calls, lambda kind, spec: artefacts.save(kind, spec, OLD)):
        with pytest.raises(ValueError, match="`kind` must be a plain name. Received"):
            call(kind, SPEC)
    assert file_names(root.parents[2]) == []


@pytest.mark.parametrize(
    ("name", "array", "error", "rule"),
    [
        ("spec", OLD["w"], ValueError, r"must not have the names \['spec'\]"),
        ("a\0b", OLD["w"], ValueError, "must not have the names"),
        ("a", np.array([None]), ValueError, "Object arrays cannot be saved"),
        ("a", np.zeros(2, ml_dtypes.bfloat16), TypeError, "'a' of dtype bfloat16"),
    ],
)
def test_bad_arrays_leave_the_old_artefact(root, artefacts, name, array, error, rule):
    path = artefacts.save("outcomes", SPEC, OLD)
    with pytest.raises(error, match=rule):
        artefacts.save("outcomes", SPEC, {"first": OLD["w"], name: array})
    assert_same(artefacts.load("outcomes", SPEC), OLD)
    assert file_names(root) == [path.name]


# Each returns a file that must not pass for the artefact of `SPEC`.
def another_spec(artefacts):
    return artefacts.save("outcomes", SPEC | {"eps": 0.2}, OLD)


def another_kind(artefacts):
    return artefacts.save("weights", SPEC, OLD)


def checkpoint_of_the_same_spec(artefacts):
    artefacts.save_checkpoint("outcomes", SPEC, 3, OLD)
    return next(artefacts.root.glob("*/*.step-000003.npz"))


def without_spec(artefacts):
    np.savez(artefacts.root / "plain.npz", **OLD)
    return artefacts.root / "plain.npz"


def fewer_numbers(artefacts):
    """Return a copy with one wrong bit, by which 4000 of 5000 numbers are read."""
    whole = next(artefacts.root.glob("outcomes/*")).read_bytes()
    (artefacts.root / "fewer.npz").write_bytes(whole.replace(b"(5000,)", b"(4000,)"))
    return artefacts.root / "fewer.npz"


# The length to which the file is cut, what stands in it, or which file takes its place.
@pytest.mark.parametrize(
    "damage",
    [
        *(0, 1, 100, 20_000, -1),
        *(b"<html>404</html>" * 9, bytes(999)),
        *(another_spec, another_kind, checkpoint_of_the_same_spec),
        *(without_spec, fewer_numbers),
    ],
)
def test_damaged_file_is_set_aside_and_can_be_saved_again(artefacts, damage):
    path = artefacts.save("outcomes", SPEC, OLD)
    if isinstance(damage, int):
        os.truncate(path, damage % path.stat().st_size)
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        shutil.copy(damage(artefacts), path)
    content = path.read_bytes()
    with pytest.warns(DamagedArtefactWarning, match=f"{path} is damaged") as caught:
        assert artefacts.load("outcomes", SPEC) is None
    assert [w.filename for w in caught] == [__file__]
    assert path.with_name(f"{path.name}.damaged").read_bytes() == content
    assert not artefacts.has("outcomes", SPEC)
    assert artefacts.load("outcomes", SPEC) is None
    artefacts.save("outcomes", SPEC, NEW)
    assert_same(artefacts.load("outcomes", SPEC), NEW)


def test_bit_flips_are_noticed_or_harmless(artefacts):
    # A name of 14 letters makes the second entry of the zip directory 64 bytes long, so
    # that one wrong bit in the length of the first entry's comment hides the second.
    arrays = {"a": np.arange(3, dtype=np.int16), "fourteen_chars": np.float32([0.5])}
    path = artefacts.save("outcomes", SPEC, arrays)
    content = path.read_bytes()
    vital = set()
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
        for entry in map(archive.read, archive.namelist()):
            start = content.index(entry)
            vital |= set(range(start, start + len(entry)))
    for position in range(len(content)):
        for bit in range(8) if position >= directory else [position % 8]:
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                got = artefacts.load("outcomes", SPEC)
            if caught or got is None or position in vital:
                assert got is None
                assert [w.category for w in caught] == [DamagedArtefactWarning]
            else:
                assert_same(got, arrays)


def test_damaged_file_that_another_process_replaced_is_read_again(
    artefacts, monkeypatch
):
    path = artefacts.save("outcomes", SPEC, OLD)
    read_npz = store.read_npz

    def find_damage(data):
        monkeypatch.setattr(store, "read_npz", read_npz)
        artefacts.save("outcomes", SPEC, NEW)
        raise zipfile.BadZipFile

    monkeypatch.setattr(store, "read_npz", find_damage)
    assert_same(artefacts.load("outcomes", SPEC), NEW)
    assert file_names(artefacts.root) == [path.name]


def test_checkpoints(root, artefacts):
    other = SPEC | {"eps": 0.2}
    assert artefacts.load_checkpoint("training", SPEC) is None
    assert artefacts.steps_done("training", SPEC) is None
    artefacts.save_checkpoint("training", other, 7, OLD)
    for step in (0, 9, np.int64(1_000_000)):
        artefacts.save_checkpoint("training", SPEC, step, OLD)
        assert artefacts.steps_done("training", SPEC) == step
        assert len(file_names(root)) == 2
    # In alphabetical order this name would come last.
    artefacts.save_checkpoint("training", SPEC, 999_999, NEW)
    step, arrays = Store(root).load_checkpoint("training", SPEC)
    assert step == artefacts.steps_done("training", SPEC) == 1_000_000
    assert_same(arrays, OLD)
    assert not artefacts.has("training", SPEC)
    path = artefacts.save("training", SPEC, NEW)
    assert artefacts.load_checkpoint("training", SPEC) is None
    assert artefacts.steps_done("training", SPEC) is None
    assert artefacts.steps_done("training", other) == 7
    assert path.name in file_names(root)


def test_an_older_checkpoint_replaces_a_damaged_one(root, artefacts):
    for step, arrays in ((5, NEW), (4, OLD)):
        artefacts.save_checkpoint("training", SPEC, step, arrays)
    os.truncate(next(root.glob("training/*5.npz")), 300)
    with pytest.warns(DamagedArtefactWarning, match=r"5\.npz is damaged"):
        step, arrays = artefacts.load_checkpoint("training", SPEC)
    assert step == artefacts.steps_done("training", SPEC) == 4
    assert_same(arrays, OLD)
    os.truncate(next(root.glob("training/*4.npz")), 300)
    with pytest.warns(DamagedArtefactWarning, match=r"4\.npz is damaged"):
        assert artefacts.load_checkpoint("training", SPEC) is None
    assert [name[-14:] for name in file_names(root)] == [
        "04.npz.damaged",
        "05.npz.damaged",
    ]


def test_bad_step(artefacts):
    with pytest.raises(ValueError, match="`step` must be >= 0. Received: step=-1"):
        artefacts.save_checkpoint("training", SPEC, -1, OLD)
    with pytest.raises(TypeError, match="float"):
        artefacts.save_checkpoint("training", SPEC, 1.5, OLD)


def raise_no_space(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_disk(monkeypatch, fault):
    """Let one function of `os` fail, or every write beyond the first `fault` bytes."""

    class FileOnFullDisk(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > fault:
                raise_no_space()
            return super().write(data)

    def open_on_full_disk(path, mode):
        return io.BufferedWriter(FileOnFullDisk(path, mode))

    if isinstance(fault, str):
        monkeypatch.setattr(os, fault, raise_no_space)
    else:
        for module in (files, store):
            monkeypatch.setattr(module, "open", open_on_full_disk, raising=False)


@pytest.mark.parametrize("fault", [0, 100, 9_000, 41_000, "fsync", "replace"])
def test_failed_write_leaves_the_old_artefact(root, artefacts, monkeypatch, fault):
    path = artefacts.save("outcomes", SPEC, OLD)
    assert path.stat().st_size > 41_000
    artefacts.save_checkpoint("outcomes", SPEC, 3, OLD)
    before = file_names(root)
    with monkeypatch.context() as patch:
        fill_disk(patch, fault)
        with pytest.raises(OSError, match=f"Cannot write {path}: No space") as error:
            artefacts.save("outcomes", SPEC, NEW)
        assert error.value.errno == errno.ENOSPC
        assert "Free some space or use another directory" in message(error)
        with pytest.raises(OSError, match="No space left"):
            artefacts.save_checkpoint("outcomes", SPEC, 4, NEW)
        assert file_names(root) == before
    assert_same(artefacts.load("outcomes", SPEC), OLD)
    assert_same(artefacts.load_checkpoint("outcomes", SPEC)[1], OLD)
    artefacts.save("outcomes", SPEC, NEW)
    assert_same(artefacts.load("outcomes", SPEC), NEW)


@pytest.mark.parametrize("fault", [0, "fsync"])
def test_full_disk_is_noticed_when_the_store_is_made(tmp_path, monkeypatch, fault):
    fill_disk(monkeypatch, fault)
    with pytest.raises(OSError, match="Cannot write to the store") as error:
        Store(tmp_path)
    assert "Free some space" in message(error)
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("under", ["", "store", "a/store"])
def test_file_in_the_way_of_the_root(tmp_path, under):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="Cannot write to the store") as error:
        Store(tmp_path / "file" / under)
    assert str(tmp_path / "file" / under) in message(error)
    assert "Move the file that is in its way or use another dir" in message(error)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_something_else_in_place_of_an_artefact(root, artefacts, kind):
    (root / "file").touch()
    (root / "directory" / f"{digest(SPEC)}.npz").mkdir(parents=True)
    assert not artefacts.has(kind, SPEC)
    with pytest.raises(OSError, match=f"Cannot read {root}") as error:
        artefacts.load(kind, SPEC)
    assert "or use another directory" in message(error)
    with pytest.raises(OSError, match=f"Cannot write {root}") as error:
        artefacts.save(kind, SPEC, OLD)
    assert "or use another directory" in message(error)
    assert file_names(root) == ["file"]


def test_old_temporary_files_are_removed(root, artefacts):
    name = artefacts.save("outcomes", SPEC, OLD).name
    for folder in (root, root / "outcomes"):
        for stem, hours in (("fresh", 1), ("old", 25)):
            for suffix in (".advens-partial", ".npz"):
                path = folder / f"{stem}{suffix}"
                path.touch()
                os.utime(path, (time.time() - hours * 3600,) * 2)
    Store(root)
    left = ["fresh.advens-partial", "fresh.npz", "old.npz"]
    assert file_names(root) == sorted([name, *left, *left])


WRITER = """
import os, pathlib, sys
import numpy as np
from advens.storage.store import Store

root, writer, count, fatal = sys.argv[1:]
store = Store(root)
for step in range(int(count)):
    if fatal and step == 3:
        exec(f"{fatal} = lambda *args, **options: os.kill(os.getpid(), 9)")
    w = np.full(200_000, 1000 * int(writer) + step)
    arrays = {"w": w, "writer": np.array(int(writer))}
    store.save("outcomes", {}, arrays)
    store.save_checkpoint("training", {}, step, arrays)
    print(step, flush=True)
"""


def start_writer(root, *, count, writer=0, fatal=""):
    arguments = [str(root), str(writer), str(count), fatal]
    command = [sys.executable, "-c", WRITER, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def step_of(arrays):
    """Return the step at which one writer wrote these arrays, whole."""
    assert arrays["w"].shape == (200_000,)
    (value,) = set(arrays["w"].tolist())
    writer, step = divmod(value, 1000)
    assert writer == arrays["writer"]
    return step


# After so many seconds, or in which function of the fourth write.
@pytest.mark.parametrize(
    "when",
    [
        *(0.0, 0.003, 0.01, 0.02),
        *("np.lib.format.write_array", "os.fsync", "os.replace", "pathlib.Path.unlink"),
    ],
)
def test_kill_in_a_loop_of_writes(tmp_path, when):
    fatal = when if isinstance(when, str) else ""
    with start_writer(tmp_path, count=1000, fatal=fatal) as writer:
        lines = [writer.stdout.readline()]
        if not fatal:
            time.sleep(when)
            writer.kill()
        done = int((lines + writer.stdout.readlines())[-1])
    assert writer.returncode == -signal.SIGKILL
    after = Store(tmp_path)
    step, arrays = after.load_checkpoint("training", {})
    # Everything that was reported as written is there, and nothing is half written.
    assert step == step_of(arrays)
    assert step in (done, done + 1)
    assert step_of(after.load("outcomes", {})) in (done, done + 1)
    after.save("training", {}, arrays)
    assert after.steps_done("training", {}) is None


def test_two_processes_write_the_same_artefact(tmp_path):
    shared, seen = Store(tmp_path), set()
    writers = [start_writer(tmp_path, writer=n, count=60) for n in (1, 2)]
    while any(writer.poll() is None for writer in writers):
        if (arrays := shared.load("outcomes", {})) is not None:
            seen.add((int(arrays["writer"]), step_of(arrays)))
        if (checkpoint := shared.load_checkpoint("training", {})) is not None:
            assert checkpoint[0] == step_of(checkpoint[1])
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert len(seen) > 2
    assert step_of(shared.load("outcomes", {})) == 59
    stem = digest({})
    assert file_names(tmp_path) == [f"{stem}.npz", f"{stem}.step-000059.npz"]


def test_an_exported_artefact_is_taken_in_elsewhere(tmp_path, artefacts):
    artefacts.save("outcomes", SPEC, OLD)
    artefacts.export("outcomes", SPEC, tmp_path / "out")
    other = Store(tmp_path / "other")
    assert other.take_in(tmp_path / "out") == 1
    assert_same(other.load("outcomes", SPEC), OLD)
    # What is there already stays.
    other.save("outcomes", SPEC, NEW)
    assert other.take_in(tmp_path / "out") == 1
    assert_same(other.load("outcomes", SPEC), NEW)
    with pytest.raises(LookupError, match="does not hold outcomes"):
        artefacts.export("outcomes", {"another": 1}, tmp_path / "out")


def test_nothing_is_taken_in_if_a_file_is_damaged_or_misplaced(tmp_path, artefacts):
    for spec in (SPEC, {"another": 1}):
        artefacts.save("outcomes", spec, OLD)
        artefacts.export("outcomes", spec, tmp_path / "out")
    first, second = sorted((tmp_path / "out" / "outcomes").iterdir())
    other = Store(tmp_path / "other")
    whole = second.read_bytes()
    for broken, reason in (
        (whole[:-10], "is damaged, or was not exported"),
        (first.read_bytes(), "its name is not its address"),
    ):
        second.write_bytes(broken)
        with pytest.raises(ValueError, match=reason):
            other.take_in(tmp_path / "out")
        assert not file_names(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="holds none"):
        other.take_in(tmp_path / "nowhere")


def test_a_store_waits_for_its_directory(tmp_path):
    """As it must where a network takes the directory away for a while."""
    waiting = Store(tmp_path / "store")
    waiting.save("member", SPEC, OLD)
    hidden = (tmp_path / "store").rename(tmp_path / "hidden")

    def come_back():
        hidden.rename(tmp_path / "store")

    for use in (
        lambda: waiting.has("member", SPEC),
        lambda: waiting.load("member", SPEC) is not None,
        lambda: waiting.steps_done("member", SPEC) is None,
        lambda: waiting.save("member", {"a": 1}, NEW),
    ):
        timer = threading.Timer(0.5, come_back)
        timer.start()
        with pytest.warns(VanishedStoreWarning, match="has vanished. Waiting for it"):
            assert use()
        timer.join()
        assert len(list((tmp_path / "store").iterdir())) == 1
        (tmp_path / "store").rename(hidden)
    assert not (tmp_path / "store").exists()


def test_a_store_that_stays_away(tmp_path, monkeypatch):
    gone = Store(tmp_path / "store")
    (tmp_path / "store").rmdir()
    monkeypatch.setattr(store, "_PATIENCE_SECONDS", 0.1)
    for use in (gone.load, gone.has, gone.steps_done):
        with (
            pytest.warns(VanishedStoreWarning),
            pytest.raises(OSError, match="has vanished, and did not come back"),
        ):
            use("member", SPEC)
    with (
        pytest.warns(VanishedStoreWarning),
        pytest.raises(OSError, match="has vanished, and did not come back"),
    ):
        gone.save("member", SPEC, OLD)
    assert not (tmp_path / "store").exists()


def test_an_old_listing(tmp_path, monkeypatch):
    """NFS may list files that were removed a moment ago, and not those that are new."""
    stale = Store(tmp_path)
    for step in (1, 2, 3):
        stale.save_checkpoint("member", SPEC, step, OLD)
    monkeypatch.setattr(stale, "_steps", lambda kind, spec: {1, 2, 3, 4})
    step, arrays = stale.load_checkpoint("member", SPEC)
    assert step == 3
    assert_array_equal(arrays["w"], OLD["w"])
    stale.save_checkpoint("member", SPEC, 5, NEW)
    stale.save("member", SPEC, NEW)
    monkeypatch.undo()
    # What the old listing lacked is left, and does no harm.
    assert stale.load_checkpoint("member", SPEC)[0] == 5
    assert_array_equal(stale.load("member", SPEC)["w"], NEW["w"])


def test_a_file_that_is_replaced_while_it_is_read(tmp_path, monkeypatch):
    """NFS then answers that the handle is stale."""
    held = Store(tmp_path)
    held.save("member", SPEC, OLD)
    fstat, failures = os.fstat, [OSError(errno.ESTALE, os.strerror(errno.ESTALE))]

    def stale_once(descriptor):
        if failures:
            raise failures.pop()
        return fstat(descriptor)

    monkeypatch.setattr(store.os, "fstat", stale_once)
    assert_array_equal(held.load("member", SPEC)["w"], OLD["w"])
