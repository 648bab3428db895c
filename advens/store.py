"""The artefact store: content-addressed, atomic, resumable.

An artefact is a mapping of named arrays, found again by what it was made from: its
kind and its spec. A run that is killed and started again finds what it finished,
and the newest checkpoint of what it did not.

Files appear under their final name whole or not at all, so that a kill or a full
disk leaves the old artefact or the new one. Any number of processes may use one
root at the same time: the worst that can happen is that one thing is made twice.
"""

import contextlib
import hashlib
import io
import json
import operator
import os
import re
import time
import uuid
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from advens.files import TEMPORARY, atomic, explained

SCHEMA = 1  # Raise it when the meaning of an artefact changes.

Spec = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

_STALE_SECONDS = 24 * 60 * 60


class DamagedArtefactWarning(UserWarning):
    """A stored file is not what was saved; it will be made again."""


def digest(spec: Spec) -> str:
    """Name what is made from `spec`: 32 hexadecimal digits of a SHA-256.

    The order of keys is of no account, a tuple equals a list, 1 differs from 1.0.

    Raises:
        TypeError: JSON cannot hold `spec` (arrays, NaN, keys that are not strings).
    """
    try:
        text = _canonical_json({"schema": SCHEMA, "spec": dict(spec)})
        if not _has_string_keys(spec):
            raise TypeError("keys must be strings")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`spec` must be a mapping that JSON can hold ({error}). "
            f"Received: spec={spec!r}"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Store:
    """Artefacts in a directory, each a file `root/kind/<digest>.npz`.

    Everywhere, `kind` is the sort of artefact, a plain name such as `"outcomes"`,
    and `spec` what it is made from, see `digest`.

    Args:
        root: the directory, created if absent. What killed runs left there more than
            a day ago is removed.

    Raises:
        OSError: nothing can be written to `root`.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        # Absolute, for worker processes with a working directory of their own.
        self.root = Path(root).absolute()
        probe = self.root / f"probe.{uuid.uuid4().hex}{TEMPORARY}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                with open(probe, "xb") as handle:
                    handle.write(b"advens")
                    handle.flush()
                    os.fsync(handle.fileno())
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise explained(error, "write to the store", self.root) from error
        for pattern in (f"*{TEMPORARY}", f"*/*{TEMPORARY}"):
            for path in self.root.glob(pattern):
                with contextlib.suppress(OSError):  # gone already, or not ours
                    if path.stat().st_mtime < time.time() - _STALE_SECONDS:
                        path.unlink()

    def save(self, kind: str, spec: Spec, arrays: Arrays) -> Path:
        """Write an artefact, then drop its checkpoints.

        On any failure the old artefact and the checkpoints remain.

        Args:
            kind: the sort of artefact.
            spec: what it is made from.
            arrays: of any shape and any dtype that is numpy's own, bar objects. No
                array may be named `"spec"`.

        Returns:
            The file, an uncompressed npz that `np.load` reads too.

        Raises:
            OSError: the file cannot be written.
        """
        path = self._write(kind, spec, None, arrays)
        for step in self._steps(kind, spec):
            self._path(kind, spec, step).unlink(missing_ok=True)
        return path

    def load(self, kind: str, spec: Spec) -> dict[str, np.ndarray] | None:
        """Read an artefact and check every checksum in it.

        A damaged file is named in a `DamagedArtefactWarning` and moved to
        `<name>.damaged`.

        Returns:
            What was saved; None if there is nothing, or nothing whole.

        Raises:
            OSError: the file is there and cannot be read, for want of permission say.
        """
        return self._read(kind, spec, None)

    def has(self, kind: str, spec: Spec) -> bool:
        """Say whether the artefact exists, by its name alone; it may be damaged."""
        return self._path(kind, spec, None).is_file()

    def save_checkpoint(self, kind: str, spec: Spec, step: int, arrays: Arrays) -> None:
        """Write the state after `step` steps, then remove older checkpoints.

        A kill at any moment leaves at least one whole checkpoint.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"`step` must be >= 0. Received: step={step}")
        self._write(kind, spec, step, arrays)
        for other in self._steps(kind, spec):
            if other < step:
                self._path(kind, spec, other).unlink(missing_ok=True)

    def load_checkpoint(
        self, kind: str, spec: Spec
    ) -> tuple[int, dict[str, np.ndarray]] | None:
        """Read the newest whole checkpoint, its step and its arrays; None without one.

        Damaged ones are treated as in `load`, and the next older one is read.
        """
        tried: set[int] = set()
        # Listed anew each time: another process may have put a newer one in place.
        while steps := self._steps(kind, spec) - tried:
            step = max(steps)
            if (arrays := self._read(kind, spec, step)) is not None:
                return step, arrays
            tried.add(step)
        return None

    def steps_done(self, kind: str, spec: Spec) -> int | None:
        """Return the newest checkpoint's step, by names alone; None without one."""
        return max(self._steps(kind, spec), default=None)

    def _path(self, kind: str, spec: Spec, step: int | None) -> Path:
        if not re.fullmatch(r"\w[\w.-]*", kind):
            raise ValueError(f"`kind` must be a plain name. Received: kind={kind!r}")
        suffix = "" if step is None else f".step-{step:06d}"
        return self.root / kind / f"{digest(spec)}{suffix}.npz"

    def _steps(self, kind: str, spec: Spec) -> set[int]:
        path = self._path(kind, spec, None)
        names = (found.name for found in path.parent.glob(f"{path.stem}.step-*.npz"))
        matches = (re.search(r"\.step-(\d{6,})\.npz$", name) for name in names)
        return {int(match[1]) for match in matches if match}

    def _write(self, kind: str, spec: Spec, step: int | None, arrays: Arrays) -> Path:
        path = self._path(kind, spec, step)
        if bad := [name for name in arrays if name == "spec" or "\0" in name]:
            raise ValueError(f"`arrays` must not have the names {bad}")
        label = np.array(_label(kind, spec, step, arrays))
        with atomic(path) as handle:
            _pack(handle, {**arrays, "spec": label})
        return path

    def _read(
        self, kind: str, spec: Spec, step: int | None
    ) -> dict[str, np.ndarray] | None:
        path = self._path(kind, spec, step)
        # All bytes first: from here on a failure is the file's, not the disk's.
        try:
            with open(path, "rb") as handle:
                opened, data = os.fstat(handle.fileno()), handle.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explained(error, "read", path) from error
        try:
            arrays = _unpack(data)
            label = arrays.pop("spec", np.array(None)).tolist()
            if label != _label(kind, spec, step, arrays):
                raise ValueError("the spec stored in it is missing or another one")
            return arrays
        except MemoryError:
            raise
        except Exception as error:  # what damage raises has no common base class
            reason = str(error) or type(error).__name__
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            found = path.stat()
            if (found.st_ino, found.st_mtime_ns) != (opened.st_ino, opened.st_mtime_ns):
                return self._read(kind, spec, step)  # made again meanwhile
            os.replace(path, path.with_name(f"{path.name}.damaged"))
        warnings.warn(
            f"{path} is damaged ({reason}): it is set aside as {path.name}.damaged "
            "and will be made again",
            DamagedArtefactWarning,
            stacklevel=3,
        )
        return None


def _pack(handle: BinaryIO, arrays: Arrays) -> None:
    """Write as `np.savez` does, but the same bytes each time and with any names."""
    with zipfile.ZipFile(handle, "w") as archive:
        for name, value in arrays.items():
            array = np.asarray(value)
            descr = np.lib.format.dtype_to_descr(array.dtype)
            # An npy file keeps bfloat16, say, as nameless bytes.
            if np.lib.format.descr_to_dtype(descr) != array.dtype:
                raise TypeError(
                    "`arrays` must be of dtypes that an npy file keeps. "
                    f"Received: {name!r} of dtype {array.dtype}"
                )
            info = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(info, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _unpack(data: bytes) -> dict[str, np.ndarray]:
    """Read what `_pack` wrote; raise on any damage that checksums can tell."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if (bad := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of its entry {bad!r} is wrong")
        arrays = {}
        for name in archive.namelist():
            with archive.open(name) as entry:
                array = np.lib.format.read_array(entry, allow_pickle=False)
            arrays[name.removesuffix(".npy")] = array
        return arrays


def _label(kind: str, spec: Spec, step: int | None, arrays: Arrays) -> str:
    """Say what a file holds, so that no other file can pass for it.

    The names of the arrays are part of it: a zip directory with one wrong bit may
    seem to have fewer entries, each of them whole.
    """
    identity = {"kind": kind, "schema": SCHEMA, "spec": dict(spec), "step": step}
    return _canonical_json({"arrays": sorted(arrays), **identity})


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _has_string_keys(value: Any) -> bool:
    # `json` would write the keys 1 and "1" alike, and so give two specs one digest.
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _has_string_keys(v) for k, v in value.items())
    return not isinstance(value, list | tuple) or all(map(_has_string_keys, value))
