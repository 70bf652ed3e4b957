"""Codes of few bits packed into bytes, low bits first, without gaps: as Core ML and MLX do."""

import numpy as np

from fastvlm_compile.quantize.tensor import Codes

_CHUNK = 8 * 2**20
"""Codes unpacked to single bits at once; a multiple of 8, so that chunks end at whole bytes."""

_PAIRS_AT_ONCE = 2**18


def pack(codes: Codes, bits: int) -> Codes:
    """Codes of any shape -> ceil(n * bits / 8) bytes; the last byte is filled with zeros."""
    flat = np.ascontiguousarray(codes).reshape(-1)
    if bits == 8:
        return flat.copy()
    if bits == 4:
        return _pack_nibbles(flat)
    pieces = [
        np.packbits(_single_bits(flat[start : start + _CHUNK], bits), bitorder="little")
        for start in range(0, flat.size, _CHUNK)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint8)


def unpack(packed: Codes, bits: int, count: int) -> Codes:
    """The first `count` codes of packed bytes."""
    assert packed.size == -(-count * bits // 8), f"{packed.size} bytes for {count} codes"
    if bits == 8:
        return packed[:count].copy()
    if bits == 4:
        return _unpack_nibbles(packed)[:count]
    step = _CHUNK * bits // 8
    weights = (1 << np.arange(bits)).astype(np.uint8)
    pieces = []
    for start in range(0, packed.size, step):
        single = np.unpackbits(packed[start : start + step], bitorder="little")
        whole = single[: single.size // bits * bits].reshape(-1, bits)
        pieces.append((whole * weights).sum(axis=1, dtype=np.uint8))
    return np.concatenate(pieces)[:count] if pieces else np.empty(0, dtype=np.uint8)


def _pack_nibbles(flat: Codes) -> Codes:
    packed = flat[0::2].copy()
    packed[: flat.size // 2] |= flat[1::2] << 4
    return packed


def _unpack_nibbles(packed: Codes) -> Codes:
    pairs = np.empty(packed.size, dtype="<u2")
    for start in range(0, packed.size, _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        part[...] = packed[start : start + _PAIRS_AT_ONCE]
        part |= part << 4  # the upper code, four bits below where it belongs, is now there too
        part &= 0x0F0F
    return pairs.view(np.uint8)


def _single_bits(flat: Codes, bits: int) -> Codes:
    return np.unpackbits(flat[:, None], axis=1, count=bits, bitorder="little")
