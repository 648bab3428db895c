"""Files that appear whole or not at all, and error messages that say what to do."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

# No other program's files end like this, so old ones can be removed without asking.
TEMPORARY: Final = ".advens-partial"

_ADVICE: Final = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Allow access to it"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "Move the file that is in its way"),
    errno.EISDIR: "Put a file in its place",
}


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is whole.

    Args:
        path: the file. Its directory is made if absent.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _synced(temporary) as handle:
                yield handle
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise explained(error, "write", path) from error


def write_all(directory: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files and return their paths.

    No file gets its name before all are written, and the first one is the last to get
    it. A full disk leaves none of them, or those that were there before.

    Args:
        directory: where they are written; made if absent.
        contents: the bytes of each file, by its name.

    Raises:
        OSError: if a file cannot be written.
    """
    paths = [directory / name for name in contents]
    temporaries = [_temporary(path) for path in paths]
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            for path, temporary in zip(paths, temporaries, strict=True):
                with _synced(temporary) as handle:
                    handle.write(contents[path.name])
            for path, temporary in reversed([*zip(paths, temporaries, strict=True)]):
                os.replace(temporary, path)
        finally:
            for temporary in temporaries:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise explained(error, "write", path) from error
    return paths


@contextlib.contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file; at the end, its content is on the disk."""
    with open(path, "xb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}{TEMPORARY}")


def explained(error: OSError, action: str, path: Path) -> OSError:
    """Return an error of the same kind whose message, in one line, says what to do.

    Args:
        error: what was raised.
        action: what failed, such as `"write"`.
        path: the file or directory in question.
    """
    code = error.errno or errno.EIO
    cause = error.strerror or str(error)
    advice = f"{_ADVICE.get(code, 'Repair it')} or use another directory"
    if code == errno.ENOENT:
        advice = "Correct its name"
    return OSError(code, f"Cannot {action} {path}: {cause}. {advice}")
