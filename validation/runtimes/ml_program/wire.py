"""Protobuf's wire format, read field by field.

A few lines instead of generated classes: reading a package then needs neither coremltools nor
protobuf, and no code is shared with what wrote it.
Source: https://protobuf.dev/programming-guides/encoding/
"""

import struct
from collections.abc import Iterator

from validation.runtimes.ml_program.errors import PackageError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field:
    """One field of a message: its number and its undecoded content."""

    __slots__ = ("data", "number", "number_value", "wire")

    def __init__(self, number: int, wire: int, number_value: int, data: memoryview) -> None:
        self.number = number
        self.wire = wire
        self.number_value = number_value
        self.data = data

    def message(self) -> memoryview:
        """The bytes of a nested message, string or packed list.

        Raises:
            PackageError: the field is a number.
        """
        if self.wire != BYTES:
            raise PackageError(f"field {self.number} of the spec is a number, not a message")
        return self.data

    def text(self) -> str:
        """A string.

        Raises:
            PackageError: it is not UTF-8.
        """
        try:
            return str(self.message(), "utf-8")
        except UnicodeDecodeError as error:
            raise PackageError(f"a string of the spec is not UTF-8: {error}") from error

    def unsigned(self) -> int:
        """A varint as it stands, in 0 .. 2**64 - 1."""
        if self.wire != VARINT:
            raise PackageError(f"field {self.number} of the spec is not an integer")
        return self.number_value

    def signed(self) -> int:
        """A varint read as int32 / int64 (two's complement in 64 bits)."""
        value = self.unsigned()
        return value - (1 << 64) if value >> 63 else value

    def flag(self) -> bool:
        """A bool."""
        return self.unsigned() != 0

    def float32(self) -> float:
        """A float."""
        if self.wire != FIXED32:
            raise PackageError(f"field {self.number} of the spec is not a float")
        return float(struct.unpack("<f", self.data)[0])

    def float64(self) -> float:
        """A double."""
        if self.wire != FIXED64:
            raise PackageError(f"field {self.number} of the spec is not a double")
        return float(struct.unpack("<d", self.data)[0])


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of one message in file order.

    Raises:
        PackageError: the message is cut off or no protobuf.
    """
    at, end = 0, len(data)
    empty = data[:0]
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield Field(number, wire, value, empty)
            continue
        if wire == BYTES:
            size, at = _varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise PackageError(f"the spec is no protobuf: wire type {wire} in field {number}")
        if at + size > end:
            raise PackageError(f"the spec is cut off inside field {number}")
        yield Field(number, wire, 0, data[at : at + size])
        at += size


def packed_varints(data: memoryview) -> list[int]:
    """A packed list of int32 / int64."""
    values = []
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value - (1 << 64) if value >> 63 else value)
    return values


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise PackageError("the spec is cut off inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
