"""The artefact store: content-addressed, atomic, resumable.

An artefact is a mapping from names to arrays. Its address is what it was made from: its
kind and its spec. A run that is killed and started again finds there the artefacts that
it finished, and the newest checkpoint of those that it did not.

A file appears under its final name whole or not at all, so that a kill or a full disk
leaves either the old artefact or the new one. Any number of processes may use the same
store at the same time: at worst, two of them make the same artefact.
"""

import contextlib
import errno
import json
import operator
import os
import re
import time
import uuid
import warnings
from pathlib import Path
from typing import Final

import numpy as np

from advens.storage.addresses import Spec, description, digest
from advens.storage.files import TEMPORARY, atomic, explained
from advens.storage.npz import Arrays, read_npz, write_npz

_STALE_SECONDS: Final = 24 * 60 * 60
# How long a store waits for its directory, which a network may take away for a while.
_PATIENCE_SECONDS: Final = 120


class DamagedArtefactWarning(UserWarning):
    """A stored file does not hold what was saved. Its artefact will be made again."""


class VanishedStoreWarning(UserWarning):
    """The directory of a store has vanished, and the store waits for it."""


class Store:
    """Artefacts in a directory, each in a file `root/kind/<digest>.npz`.

    In every method, `kind` is the sort of artefact, a plain name such as `"outcomes"`,
    and `spec` is what the artefact is made from, see `digest`.

    Args:
        root: the directory, made if absent. Temporary files there that are more than a
            day old are removed: killed runs left them.

    Attributes:
        root: the directory as an absolute path.

    If the directory vanishes, as one on a network may, every method waits two minutes
    for it, and a `VanishedStoreWarning` says so.

    Raises:
        OSError: if nothing can be written to `root`.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        # Absolute, because a worker process may have another working directory.
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
        """Write an artefact, then remove its checkpoints.

        If anything fails, the old artefact and the checkpoints remain.

        Args:
            kind: see `Store`.
            spec: see `Store`.
            arrays: of any shape, and of any dtype of numpy's own but objects. No array
                may have the name `"spec"`.

        Returns:
            The path of the file, an uncompressed npz that `np.load` can read, too.

        Raises:
            OSError: if the file cannot be written.
        """
        path = self._write(kind, spec, None, arrays)
        for step in self._steps(kind, spec):
            self._path(kind, spec, step).unlink(missing_ok=True)
        return path

    def load(self, kind: str, spec: Spec) -> dict[str, np.ndarray] | None:
        """Read an artefact and check every checksum in its file.

        A damaged file is moved to `<name>.damaged`, and a `DamagedArtefactWarning`
        names it.

        Returns:
            The arrays that were saved; None if there are none or the file is damaged.

        Raises:
            OSError: if the file exists but cannot be read, for example because the
                permission is missing.
        """
        return self._read(kind, spec, None)

    def has(self, kind: str, spec: Spec) -> bool:
        """Return whether a file of the artefact's name exists; it may be damaged."""
        found = self._path(kind, spec, None).is_file()
        if not found and not self.root.is_dir():
            return self.has(kind, spec)  # it vanished meanwhile
        return found

    def export(self, kind: str, spec: Spec, directory: str | os.PathLike[str]) -> None:
        """Copy an artefact, whole or not at all, to where `take_in` finds it.

        Raises:
            LookupError: if there is no whole artefact.
        """
        if self.load(kind, spec) is None:
            raise LookupError(f"{self.root} does not hold {kind} {digest(spec)}")
        path = self._path(kind, spec, None)
        with atomic(Path(directory) / kind / path.name) as handle:
            handle.write(path.read_bytes())

    def take_in(self, directory: str | os.PathLike[str]) -> int:
        """Add the artefacts that `export` copied, and return how many there are.

        All files are checked first. An artefact that the store holds stays as it is.

        Raises:
            FileNotFoundError: if there are none.
            ValueError: if a file is damaged, or is not at its address.
        """
        paths = sorted(Path(directory).glob("*/*.npz"))
        if not paths:
            raise FileNotFoundError(
                "What is imported must be a directory to which outcomes were exported. "
                f"Received: {str(directory)!r}, which holds none"
            )
        contents = {path: _checked_artefact(path) for path in paths}
        for path, data in contents.items():
            target = self.root / path.parent.name / path.name
            if not target.is_file():
                with atomic(target) as handle:
                    handle.write(data)
        return len(paths)

    def save_checkpoint(self, kind: str, spec: Spec, step: int, arrays: Arrays) -> None:
        """Write the state after `step` steps, then remove older checkpoints.

        Once a first checkpoint is written, a kill at any moment leaves a whole one.
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
        """Return the step and the arrays of the newest whole checkpoint, if any.

        A damaged checkpoint is treated as in `load`, and the next older one is read.
        """
        tried: set[int] = set()
        # Listed anew each time: another process may have written a newer one.
        while steps := self._steps(kind, spec) - tried:
            step = max(steps)
            if (arrays := self._read(kind, spec, step)) is not None:
                return step, arrays
            tried.add(step)
        return None

    def steps_done(self, kind: str, spec: Spec) -> int | None:
        """Return the step of the newest checkpoint, from file names alone, if any."""
        return max(self._steps(kind, spec), default=None)

    def _path(self, kind: str, spec: Spec, step: int | None) -> Path:
        if not re.fullmatch(r"\w[\w.-]*", kind):
            raise ValueError(f"`kind` must be a plain name. Received: kind={kind!r}")
        suffix = "" if step is None else f".step-{step:06d}"
        self._wait()
        return self.root / kind / f"{digest(spec)}{suffix}.npz"

    def _steps(self, kind: str, spec: Spec) -> set[int]:
        artefact = self._path(kind, spec, None)
        pattern = re.compile(r"\.step-(\d{6,})\.npz$")
        paths = artefact.parent.glob(f"{artefact.stem}.step-*.npz")
        matches = [pattern.search(path.name) for path in paths]
        return {int(match[1]) for match in matches if match}

    def _write(self, kind: str, spec: Spec, step: int | None, arrays: Arrays) -> Path:
        path = self._path(kind, spec, step)
        if bad := [name for name in arrays if name == "spec" or "\0" in name]:
            raise ValueError(f"`arrays` must not have the names {bad}")
        label = np.array(description(kind, spec, step, arrays))
        try:
            with atomic(path) as handle:
                write_npz(handle, {**arrays, "spec": label})
        except OSError:
            if self.root.is_dir():
                raise
            return self._write(kind, spec, step, arrays)  # it vanished meanwhile
        return path

    def _wait(self) -> None:
        """Wait for the directory if it has vanished.

        Raises:
            FileNotFoundError: if it does not come back in time.
        """
        end = time.monotonic() + _PATIENCE_SECONDS
        is_waiting = False
        while not self.root.is_dir():
            if time.monotonic() > end:
                raise FileNotFoundError(
                    f"{self.root} has vanished, and did not come back for "
                    f"{_PATIENCE_SECONDS} seconds. Mount it and start again"
                )
            if not is_waiting:
                message = (
                    f"{self.root} has vanished. Waiting for it, for "
                    f"{_PATIENCE_SECONDS} seconds at most"
                )
                warnings.warn(message, VanishedStoreWarning, stacklevel=4)
            is_waiting = True
            time.sleep(0.2)

    def _read(
        self, kind: str, spec: Spec, step: int | None
    ) -> dict[str, np.ndarray] | None:
        path = self._path(kind, spec, step)
        # All bytes are read first: whatever fails after that, the file is damaged.
        try:
            with open(path, "rb") as handle:
                stat, data = os.fstat(handle.fileno()), handle.read()
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            if missing and self.root.is_dir():
                return None
            if missing or error.errno == errno.ESTALE:  # vanished, or replaced on NFS
                return self._read(kind, spec, step)
            raise explained(error, "read", path) from error
        try:
            arrays = read_npz(data)
            label = arrays.pop("spec", np.array(None)).tolist()
            if label != description(kind, spec, step, arrays):
                raise ValueError("the spec stored in it is missing or another one")
            return arrays
        except MemoryError:
            raise
        except Exception as error:  # damage raises errors with no common base class
            reason = str(error) or type(error).__name__
        with contextlib.suppress(FileNotFoundError):  # another process has moved it
            now = path.stat()
            if (now.st_ino, now.st_mtime_ns) != (stat.st_ino, stat.st_mtime_ns):
                return self._read(kind, spec, step)  # another process made it again
            os.replace(path, path.with_name(f"{path.name}.damaged"))
        warnings.warn(
            f"{path} is damaged ({reason}): it is set aside as {path.name}.damaged "
            "and will be made again",
            DamagedArtefactWarning,
            stacklevel=3,
        )
        return None


def _checked_artefact(path: Path) -> bytes:
    """Return the content of an artefact's file if it is whole and at its address."""
    data = path.read_bytes()
    try:
        arrays = read_npz(data)
        label = arrays.pop("spec").tolist()
        identity = json.loads(label)
        kind, spec = identity["kind"], identity["spec"]
        if (kind, digest(spec)) != (path.parent.name, path.stem):
            raise ValueError("its name is not its address")
        if label != description(kind, spec, None, arrays):
            raise ValueError("the spec stored in it is another one")
    except Exception as error:  # damage raises errors with no common base class
        raise ValueError(f"{path} is damaged, or was not exported ({error})") from error
    return data
