"""Elements from stored bytes; sub-byte types are packed low bits first."""

import numpy as np

from validation.runtimes.ml_program.types import DType

# What numpy holds an element in once read; sub-byte integers take one byte each.
NUMPY: dict[DType, str] = {
    DType.BOOL: "?",
    DType.FP16: "<f2",
    DType.FP32: "<f4",
    DType.FP64: "<f8",
    DType.INT8: "i1",
    DType.INT16: "<i2",
    DType.INT32: "<i4",
    DType.INT64: "<i8",
    DType.UINT8: "u1",
    DType.UINT16: "<u2",
    DType.UINT32: "<u4",
    DType.UINT64: "<u8",
    DType.INT4: "i1",
    DType.UINT1: "u1",
    DType.UINT2: "u1",
    DType.UINT3: "u1",
    DType.UINT4: "u1",
    DType.UINT6: "u1",
}


_GROUPS_AT_ONCE = 2**13
"""Of eight elements, which begin and end at whole bytes; parts this small stay in the cache."""

_BYTES_AT_ONCE = 2**16
"""Looked up as indices of eight bytes each, which then stay in the cache."""


def stored_bytes(dtype: DType, count: int) -> int:
    """Bytes that `count` elements take."""
    return (dtype.bits * count + 7) // 8


def elements(raw: np.ndarray, dtype: DType, count: int) -> np.ndarray:
    """`count` elements, flat.

    Args:
        raw: uint8, at least `stored_bytes(dtype, count)` of them.
        dtype: a type of `NUMPY`.

    Returns:
        A view for whole-byte types, a fresh array (int8 or uint8) for sub-byte ones.
    """
    raw = raw[: stored_bytes(dtype, count)]
    if dtype.bits >= 8:
        return raw.view(NUMPY[dtype])
    unpacked = unpack(raw, dtype.bits, count)
    if dtype is DType.INT4:
        signed = unpacked.view(np.int8)
        signed ^= 8  # 0 .. 7 become 8 .. 15, and -8 .. -1, stored as 8 .. 15, become 0 .. 7
        signed -= 8
        return signed
    return unpacked


def unpack(raw: np.ndarray, bits: int, count: int) -> np.ndarray:
    """`count` unsigned integers of 1 .. 8 bits, packed low bits first across byte borders.

    Args:
        raw: uint8.

    Returns:
        uint8 [count].
    """
    if bits == 8:
        return raw[:count].copy()
    if 8 % bits == 0:  # they never cross a byte
        return _unpack_bytes(raw, bits)[:count]
    return _unpack_groups(raw, bits, count)


def _unpack_bytes(raw: np.ndarray, bits: int) -> np.ndarray:
    """Each byte looked up in a table of what it holds, all of it read as one integer."""
    spread = np.arange(256)[:, None] >> np.arange(0, 8, bits) & ((1 << bits) - 1)
    table = spread.astype(np.uint8).view(f"u{8 // bits}").reshape(-1)
    found = np.empty(len(raw), dtype=table.dtype)
    for start in range(0, len(raw), _BYTES_AT_ONCE):
        part = slice(start, start + _BYTES_AT_ONCE)
        np.take(table, raw[part], out=found[part], mode="clip")  # any other mode makes a copy
    return found.view(np.uint8)


def _unpack_groups(raw: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Eight elements at a time, of which each is in one byte or across the border of two."""
    num_groups = -(-count // 8)
    whole = np.zeros((num_groups, bits), dtype=np.uint8)
    flat = whole.reshape(-1)
    flat[: len(raw)] = raw[: len(flat)]
    found = np.empty((num_groups, 8), dtype=np.uint8)
    for start in range(0, num_groups, _GROUPS_AT_ONCE):
        part = slice(start, start + _GROUPS_AT_ONCE)
        for place in range(8):
            first, skipped = divmod(place * bits, 8)
            element = whole[part, first] >> skipped
            if skipped + bits > 8:
                element |= whole[part, first + 1] << (8 - skipped)
            np.bitwise_and(element, (1 << bits) - 1, out=found[part, place])
    return found.reshape(-1)[:count]
