"""The files of an audit: written together or not at all, and read again."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from advens.storage.files import explained, write_all
from advens.storage.npz import Arrays, read_npz, write_npz

# What audit.json holds.
Document: TypeAlias = Mapping[str, Any]

_DOCUMENT: Final = "audit.json"
_OUTCOMES: Final = "outcomes.npz"


def write_audit(
    directory: Path, document: Document, outcomes: Arrays, page: str
) -> list[Path]:
    """Write audit.json, cells.csv, outcomes.npz and report.html; return their paths.

    Args:
        directory: where they are written; made if absent.
        document: the content of audit.json. Of its `"attacks"`, each becomes a row of
            cells.csv.
        outcomes: the arrays of outcomes.npz.
        page: the content of report.html.

    Raises:
        OSError: if a file cannot be written. Those of an earlier audit then remain.
    """
    import pandas as pd

    arrays = io.BytesIO()
    write_npz(arrays, outcomes)
    cells = pd.json_normalize(document["attacks"], sep="_")
    contents = {
        _DOCUMENT: json.dumps(document, indent=2, allow_nan=False).encode(),
        "cells.csv": cells.to_csv(index=False).encode(),
        _OUTCOMES: arrays.getvalue(),
        "report.html": page.encode(),
    }
    return write_all(directory, contents)


def read_audit(path: Path) -> tuple[Document, dict[str, np.ndarray]]:
    """Read the audit.json of an audit, and the outcomes.npz beside it.

    Args:
        path: audit.json, or its directory.

    Raises:
        OSError: if one of them cannot be read.
        ValueError: if one of them is damaged.
    """
    path = path / _DOCUMENT if path.is_dir() else path
    beside = path.with_name(_OUTCOMES)
    try:
        text, data = path.read_bytes(), beside.read_bytes()
    except OSError as error:
        raise explained(error, "read", Path(error.filename)) from error
    try:
        document, outcomes = json.loads(text), read_npz(data)
        missing = {"settings", "data", "members", "attacks"} - set(document)
        if missing or "y" not in outcomes:
            raise ValueError("an entry is missing")
    except Exception as error:  # damage raises errors with no common base class
        raise ValueError(
            f"{path} and {_OUTCOMES} beside it must be of an audit ({error}). Audit "
            "again"
        ) from error
    return document, outcomes
