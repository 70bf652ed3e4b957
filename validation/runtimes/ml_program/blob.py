"""Weight files (`weight.bin`, MIL blob storage version 2), memory-mapped.

A 64-byte header {u32 count, u32 version, ...}, then per blob a 64-byte record {u32 sentinel,
u32 type, u64 bytes, u64 offset of the data, u64 padding bits, ...} and its data, all
little-endian and 64-byte aligned. Programs refer to a blob by the offset of its record.
Source: `MILBlob/Blob/StorageFormat.hpp` of coremltools; this reader shares no code with it.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from validation.runtimes.ml_program.bits import NUMPY, elements
from validation.runtimes.ml_program.errors import PackageError
from validation.runtimes.ml_program.types import DType, TensorType

_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQQ")
_RECORD_BYTES = 64
_ALIGNMENT = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2

# BlobDataType of `MILBlob/Blob/BlobDataType.hpp`.
_DTYPES = {
    1: DType.FP16,
    2: DType.FP32,
    3: DType.UINT8,
    4: DType.INT8,
    5: DType.BF16,
    6: DType.INT16,
    7: DType.UINT16,
    8: DType.INT4,
    9: DType.UINT1,
    10: DType.UINT2,
    11: DType.UINT4,
    12: DType.UINT3,
    13: DType.UINT6,
    14: DType.INT32,
    15: DType.UINT32,
    16: DType.FP8E4M3FN,
    17: DType.FP8E5M2,
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a weight file says of one blob."""

    dtype: DType
    size_bytes: int
    data_offset: int
    padding_bits: int


class WeightFile:
    """One weight file, open for reading."""

    def __init__(self, path: Path) -> None:
        """Map `path`.

        Raises:
            PackageError: it cannot be read or is no weight file of version 2.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                # Private and writable, so that arrays over it can be lent to torch without a copy;
                # nothing writes to them, and the file stays as it is whatever happens.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise PackageError(f"{path} cannot be mapped: {error}") from error
        if len(self._map) < _RECORD_BYTES:
            raise PackageError(f"{path} is cut off: {len(self._map)} bytes, no header")
        _, version = _HEADER.unpack_from(self._map, 0)
        if version != _VERSION:
            raise PackageError(f"{path} at offset 4: blob storage version {version}, not 2")
        self._bytes = np.frombuffer(self._map, dtype=np.uint8)

    def record(self, offset: int) -> Record:
        """The record at `offset`, checked against the file.

        Raises:
            PackageError: there is no sound record; the message names file and offset.
        """
        where = f"{self.path} at offset {offset}"
        hint = "the weight file is damaged or belongs to another model; copy the package anew"
        if offset % _ALIGNMENT or offset + _RECORD_BYTES > len(self._map):
            raise PackageError(f"{where}: no blob can start here", hint=hint)
        sentinel, code, size, start, padding = _RECORD.unpack_from(self._map, offset)
        if sentinel != _SENTINEL:
            raise PackageError(f"{where}: sentinel {sentinel:#010x}, not 0xdeadbeef", hint=hint)
        if code not in _DTYPES:
            raise PackageError(f"{where}: data type {code} is unknown", hint=hint)
        if start % _ALIGNMENT or start < _RECORD_BYTES or start + size > len(self._map):
            raise PackageError(
                f"{where}: its data, {size} bytes at {start}, lies outside the file", hint=hint
            )
        return Record(dtype=_DTYPES[code], size_bytes=size, data_offset=start, padding_bits=padding)

    def check(self, offset: int, declared: TensorType) -> Record:
        """The record at `offset`, which must hold a tensor of the declared type.

        Raises:
            PackageError: type or size differ; the message names file and offset.
        """
        record = self.record(offset)
        where = f"{self.path} at offset {offset}"
        if record.dtype is not declared.dtype:
            raise PackageError(
                f"{where}: holds {record.dtype.value} where the program declares {declared}"
            )
        count = _count(declared)
        if record.size_bytes * 8 - record.padding_bits != count * record.dtype.bits and (
            # Writers may leave the padding of sub-byte data unsaid.
            record.padding_bits or record.size_bytes != (count * record.dtype.bits + 7) // 8
        ):
            raise PackageError(
                f"{where}: holds {record.size_bytes} bytes where the program declares {declared}"
            )
        return record

    def array(self, offset: int, declared: TensorType) -> np.ndarray:
        """The tensor whose record is at `offset`.

        Returns:
            A view of the mapping in the declared shape; sub-byte integers are unpacked into bytes.

        Raises:
            PackageError: as `check`, or a type that numpy cannot hold.
        """
        record = self.check(offset, declared)
        if record.dtype not in NUMPY:
            raise PackageError(f"{self.path} at offset {offset}: {record.dtype.value} is not read")
        raw = self._bytes[record.data_offset : record.data_offset + record.size_bytes]
        return elements(raw, record.dtype, _count(declared)).reshape(_fixed(declared))


def _fixed(declared: TensorType) -> tuple[int, ...]:
    if declared.shape is None or None in declared.shape:
        raise PackageError(f"a stored constant's shape is not fixed: {declared}")
    return tuple(size for size in declared.shape if size is not None)


def _count(declared: TensorType) -> int:
    return int(np.prod(_fixed(declared), dtype=np.int64))
