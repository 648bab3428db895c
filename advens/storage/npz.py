"""Arrays in a file that numpy reads, too, with checksums and without pickles."""

import io
import zipfile
from collections.abc import Mapping
from typing import BinaryIO, TypeAlias

import numpy as np

Arrays: TypeAlias = Mapping[str, np.ndarray]


def write_npz(handle: BinaryIO, arrays: Arrays) -> None:
    """Write what `np.savez` would, but always the same bytes, and with any names."""
    with zipfile.ZipFile(handle, "w") as archive:
        for name, value in arrays.items():
            array = np.asarray(value)
            descr = np.lib.format.dtype_to_descr(array.dtype)
            # An npy file would store bfloat16, for example, as bytes without a name.
            if np.lib.format.descr_to_dtype(descr) != array.dtype:
                raise TypeError(
                    "`arrays` must be of dtypes that an npy file keeps. "
                    f"Received: {name!r} of dtype {array.dtype}"
                )
            info = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(info, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def read_npz(data: bytes) -> dict[str, np.ndarray]:
    """Read what `write_npz` wrote; raise on any damage that checksums show."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if (bad := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of its entry {bad!r} is wrong")
        arrays = {}
        for name in archive.namelist():
            with archive.open(name) as entry:
                array = np.lib.format.read_array(entry, allow_pickle=False)
            arrays[name.removesuffix(".npy")] = array
        return arrays
