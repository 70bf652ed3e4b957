"""Weight files (`weight.bin`) written and copied, blob after blob.

Source: MILBlob `StorageFormat.hpp` (apple/coremltools), storage version 2, little-endian: a header
{u32 count, u32 version} in 64 bytes; per blob a record {u32 0xDEADBEEF, u32 type, u64 bytes,
u64 offset of the data, u64 padding bits} in 64 bytes, then the data; both begin at multiples of 64.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from fastvlm_compile.export.errors import ExportError

_HEADER = struct.Struct("<II56x")
_RECORD = struct.Struct("<IIQQQ32x")
_ALIGNMENT = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF
_READ_AT_ONCE = 16 * 2**20

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """A blob of an existing weight file: type, bytes without the record, unused bits at the end."""

    file: Path
    element: int
    size_bytes: int
    data_offset: int
    padding_bits: int

    def pieces(self) -> Iterator[bytes]:
        """The bytes, so many at once that they take no memory to speak of.

        Raises:
            ExportError: the file ends before them.
        """
        left = self.size_bytes
        with self.file.open("rb") as source:
            source.seek(self.data_offset)
            while left:
                piece = source.read(min(left, _READ_AT_ONCE))
                if not piece:
                    raise ExportError(f"{self.file}: ends inside the blob at {self.data_offset}")
                left -= len(piece)
                yield piece


def stored_blob(file: Path, offset: int) -> StoredBlob:
    """The blob whose record is at `offset`.

    Raises:
        ExportError: there is none.
    """
    with file.open("rb") as stream:
        stream.seek(offset)
        record = stream.read(_RECORD.size)
    if len(record) < _RECORD.size:
        raise ExportError(f"{file}: no blob at {offset}, the file ends before it")
    sentinel, element, size, start, padding = _RECORD.unpack(record)
    if sentinel != _SENTINEL:
        raise ExportError(f"{file}: no blob at {offset}")
    return StoredBlob(
        file=file, element=element, size_bytes=size, data_offset=start, padding_bits=padding
    )


class BlobWriter:
    """A new weight file, written front to back; complete when the `with` block ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0

    def __enter__(self) -> Self:
        self._file: BinaryIO = self._path.open("wb")
        self._file.write(_HEADER.pack(0, _VERSION))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if failure is None:
            self._file.seek(0)
            self._file.write(_HEADER.pack(self._count, _VERSION))
        self._file.close()

    def write(self, raw: Bytes, *, element: int, count: int, bits: int) -> int:
        """Append a blob of packed elements; returns the offset that programs refer to it by."""
        assert raw.nbytes == -(-count * bits // 8), f"{raw.nbytes} bytes for {count} of {bits} bits"
        offset = self._begin(element, raw.nbytes, raw.nbytes * 8 - count * bits)
        self._file.write(np.ascontiguousarray(raw).data)
        return offset

    def copy(self, blob: StoredBlob) -> int:
        """Append another file's blob as it is; returns its offset here."""
        offset = self._begin(blob.element, blob.size_bytes, blob.padding_bits)
        for piece in blob.pieces():
            self._file.write(piece)
        return offset

    def _begin(self, element: int, size_bytes: int, padding_bits: int) -> int:
        offset = self._file.tell()
        offset += self._file.write(bytes(-offset % _ALIGNMENT))
        self._file.write(
            _RECORD.pack(_SENTINEL, element, size_bytes, offset + _RECORD.size, padding_bits)
        )
        self._count += 1
        return offset
