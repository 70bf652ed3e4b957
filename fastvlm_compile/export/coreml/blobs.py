"""Reading weights back from `weight.bin`.

Source: MILBlob `StorageFormat.hpp` (apple/coremltools): a 64-byte file header, then per blob a
64-byte record of sentinel, type, size in bytes and data offset, little-endian.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastvlm_compile.export.errors import ExportError

_RECORD = struct.Struct("<IIQQ")
_SENTINEL = 0xDEADBEEF
_FLOAT_TYPES: dict[int, type[np.float16 | np.float32]] = {1: np.float16, 2: np.float32}
"""MILBlob's type numbers; the file is little-endian, as is every machine this runs on."""


def read_float_blob(path: Path, offset: int) -> NDArray[np.floating]:
    """The flat values of one float16 or float32 blob, memory-mapped.

    Args:
        path: of `weight.bin`.
        offset: of the blob's record, as the program names it.

    Raises:
        ExportError: there is no such blob there.
    """
    with path.open("rb") as file:
        file.seek(offset)
        record = file.read(_RECORD.size)
    if len(record) < _RECORD.size:
        raise ExportError(f"{path.name}: no blob at {offset}, the file ends before it")
    sentinel, dtype, size_bytes, data_offset = _RECORD.unpack(record)
    if sentinel != _SENTINEL or dtype not in _FLOAT_TYPES:
        raise ExportError(f"{path.name}: no float blob at {offset}")
    kind = _FLOAT_TYPES[dtype]
    count = size_bytes // np.dtype(kind).itemsize
    return np.memmap(path, dtype=kind, mode="r", offset=data_offset, shape=(count,))
