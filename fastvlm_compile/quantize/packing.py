"""Codes of few bits packed into bytes, low bits first, without gaps: as Core ML and MLX do."""

import functools

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.tensor import Codes

_Words = npt.NDArray[np.uint64]

_PAIRS_AT_ONCE = 2**18
_WORDS_AT_ONCE = 2**13
"""Of eight codes each; parts this small stay in the cache."""


def pack(codes: Codes, bits: int) -> Codes:
    """Codes of any shape -> ceil(n * bits / 8) bytes; the last byte is filled with zeros."""
    flat = np.ascontiguousarray(codes).reshape(-1)
    if bits == 8:
        return flat.copy()
    if bits == 4:
        return _pack_nibbles(flat)
    num_words = -(-flat.size // 8)
    words = _filled(flat, 8 * num_words).view("<u8")
    packed = np.empty((num_words, bits), dtype=np.uint8)
    for start in range(0, num_words, _WORDS_AT_ONCE):
        part = words[start : start + _WORDS_AT_ONCE].copy()
        _gather(part, bits)
        columns = part.view(np.uint8).reshape(-1, 8)
        for byte in range(bits):  # numpy copies a column at a time faster than rows of few bytes
            packed[start : start + _WORDS_AT_ONCE, byte] = columns[:, byte]
    return packed.reshape(-1)[: -(-flat.size * bits // 8)]


def unpack(packed: Codes, bits: int, count: int) -> Codes:
    """The first `count` codes of packed bytes."""
    assert packed.size == -(-count * bits // 8), f"{packed.size} bytes for {count} codes"
    if bits == 8:
        return packed[:count].copy()
    if bits == 4:
        return _unpack_nibbles(packed)[:count]
    num_words = -(-count // 8)
    held = _filled(packed, num_words * bits + 8)  # the last word, too, is read as eight bytes
    overlapping: _Words = np.ndarray(num_words, dtype="<u8", buffer=held, strides=(bits,))
    words = np.empty(num_words, dtype="<u8")
    for start in range(0, num_words, _WORDS_AT_ONCE):
        part = words[start : start + _WORDS_AT_ONCE]
        part[...] = overlapping[start : start + _WORDS_AT_ONCE]
        _spread(part, bits)
    return words.view(np.uint8)[:count]


def _filled(values: Codes, size: int) -> Codes:
    """The values with zeros behind them, themselves where they have the size."""
    if values.size == size:
        return values
    longer = np.zeros(size, dtype=np.uint8)
    longer[: values.size] = values
    return longer


def _spread(words: _Words, bits: int) -> None:
    """Eight codes side by side in the low bits of each word -> one in each of its bytes.

    The upper four move half a word up, then in each half the upper two, then the upper one.
    """
    upper = np.empty_like(words)
    for shift, low, high in _halvings(bits):
        np.bitwise_and(words, high, out=upper)
        upper <<= shift
        words &= low
        words |= upper


def _gather(words: _Words, bits: int) -> None:
    """What `_spread` undoes."""
    upper = np.empty_like(words)
    for shift, low, high in reversed(_halvings(bits)):
        np.right_shift(words, shift, out=upper)
        upper &= high
        words &= low
        words |= upper


@functools.cache
def _halvings(bits: int) -> tuple[tuple[np.uint64, np.uint64, np.uint64], ...]:
    """By how much the upper half of the codes moves in fields of 64, 32 and 16 bits; where the
    lower half is, and the upper one before it moves."""
    steps = []
    for field in (64, 32, 16):
        half = bits * field // 16
        low = sum(((1 << half) - 1) << start for start in range(0, 64, field))
        steps.append((np.uint64(field // 2 - half), np.uint64(low), np.uint64(low << half)))
    return tuple(steps)


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
