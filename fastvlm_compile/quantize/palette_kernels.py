"""Compiled loops over the values of one group: its distinct values, and the code of each value.

Shape letters: N values of a group (its output channels beside each other), F values of one output
channel, n distinct values, K entries of a table. An importance [F] may be empty: all are 1.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.clustering_kernels import Doubles, compiled
from fastvlm_compile.quantize.tensor import Codes, Floats

Words = npt.NDArray[np.uint16]
Keys = npt.NDArray[np.uint32]

_DIGIT = 11
_MASK = np.uint32(2**_DIGIT - 1)


class Format(NamedTuple):
    """The finite numbers of a 16-bit format, ascending; as many are negative as are not.

    Attributes:
        words: their bit patterns.
        values: what they mean.
    """

    words: Words
    values: Doubles


class Room(NamedTuple):
    """Arrays to work in, with a place for each of the 65536 bit patterns.

    Attributes:
        counts: zeros, before and after use.
        weights: likewise.
        x: for distinct values.
        w: for their weights.
    """

    counts: Keys
    weights: Doubles
    x: Doubles
    w: Doubles


@compiled
def half_words(values: Floats, words: Words) -> bool:
    """Write the float16 bit patterns [N] of values of at most 65504; whether all are float16."""
    bits = values.view(np.uint32)
    lost = np.uint32(0)
    for i in range(len(values)):
        size = bits[i] & np.uint32(0x7FFFFFFF)
        # Subnormal float16 are multiples of 2^-24; of others the exponent has another bias.
        multiple = min(abs(values[i]), np.float32(1)) * np.float32(2.0**24)
        subnormal = np.uint32(multiple)
        small = size < np.uint32(0x38800000)
        off = np.uint32(np.float32(subnormal) != multiple)
        lost |= off if small else size & np.uint32(0x1FFF)
        magnitude = subnormal if small else (size - np.uint32(0x38000000)) >> np.uint32(13)
        words[i] = ((bits[i] >> np.uint32(16)) & np.uint32(0x8000)) | magnitude
    return bool(lost == 0)


@compiled
def distinct_words(
    words: Words, form: Format, importance: Floats, room: Room
) -> tuple[Doubles, Doubles]:
    """Distinct values [n] of bit patterns [N], ascending, and the weight of each [n], in `room`.

    Values without weight are left out.
    """
    if len(importance) == 0:
        for word in words:
            room.counts[word] += np.uint32(1)
        return gather(words, form, room.counts, room)
    for start in range(0, len(words), len(importance)):
        for i in range(len(importance)):
            room.weights[words[start + i]] += np.float64(importance[i])
    return gather(words, form, room.weights, room)


@compiled
def gather(
    words: Words, form: Format, weight_of: Doubles | Keys, room: Room
) -> tuple[Doubles, Doubles]:
    """Distinct values and their weights; those of all bit patterns are set to zero."""
    weight_of[0] += weight_of[0x8000]  # the two zeros are one value
    weight_of[0x8000] = 0
    first, last = span(words, form)
    size = 0
    for at in range(first, last):  # without a branch, which would go either way
        word = form.words[at]
        room.x[size], room.w[size] = form.values[at], weight_of[word]
        size += weight_of[word] > 0
        weight_of[word] = 0
    return room.x[:size], room.w[:size]


@compiled
def span(words: Words, form: Format) -> tuple[int, int]:
    """The part of a format that holds all numbers as small as these."""
    largest = np.uint16(0)
    for word in words:
        largest = max(largest, word & np.uint16(0x7FFF))
    half = len(form.words) >> 1
    return half - 1 - int(largest), half + 1 + int(largest)


@compiled
def add_value(value: float, weight: float, x: Doubles, w: Doubles, size: int) -> int:
    """Append a value, or add to the last one if it is the same."""
    if size > 0 and x[size - 1] == value:
        w[size - 1] += weight
        return size
    x[size], w[size] = value, weight
    return size + 1


@compiled
def encode_words(words: Words, form: Format, table: Doubles, codes: Codes) -> None:
    """Write the code of the nearest entry for each bit pattern; of two as near, the lower."""
    code_of = np.empty(2**16, dtype=np.uint8)
    place, stop = span(words, form)
    for code in range(len(table)):
        end = stop
        if code + 1 < len(table):
            middle = 0.5 * (table[code] + table[code + 1])
            low = place
            while low < end:
                half = (low + end) >> 1
                if form.values[half] > middle:
                    end = half
                else:
                    low = half + 1
        for at in range(place, end):
            code_of[form.words[at]] = code
        place = end
    for i in range(len(words)):
        codes[i] = code_of[words[i]]


@compiled
def distinct_values(
    values: Floats, importance: Floats, squares: Doubles
) -> tuple[Doubles, Doubles]:
    """`distinct_words` for any float32 [N], with a weight for each output channel [N / F]."""
    per_channel = len(values) // len(squares)
    x, w = np.empty(len(values)), np.empty(len(values))
    size = 0
    for i in sorted_places(values.view(np.uint32)):
        weight = squares[i // per_channel]
        if len(importance) > 0:
            weight *= np.float64(importance[i % per_channel])
        if weight > 0.0:
            size = add_value(np.float64(values[i]), weight, x, w, size)
    return x[:size], w[:size]


@compiled
def encode_values(values: Floats, table: Doubles, codes: Codes) -> None:
    """`encode_words` for any float32: how many of the middles between entries are below each."""
    middles = np.empty(len(table) - 1)
    for k in range(len(middles)):
        middles[k] = 0.5 * (table[k] + table[k + 1])
    for i in range(len(values)):
        value = np.float64(values[i])
        low, left = 0, len(middles)
        while left > 0:
            half = left >> 1
            if middles[low + half] < value:
                low += half + 1
                left -= half + 1
            else:
                left = half
        codes[i] = low


@compiled
def sorted_places(bits: Keys) -> Keys:
    """Where the values of these float32 bit patterns are, ascending; equal ones in their order.

    Three passes of a radix sort over 11, 11 and 10 bits.
    """
    size = len(bits)
    keys, places = np.empty(size, dtype=np.uint32), np.empty(size, dtype=np.uint32)
    counts = np.zeros((3, 2**_DIGIT), dtype=np.int64)
    for i in range(size):
        # Negative numbers ascend as their bits descend.
        sign = bits[i] >> np.uint32(31)
        key = ~bits[i] if sign else bits[i] | np.uint32(2**31)
        keys[i], places[i] = key, i
        for digit in range(3):
            counts[digit, (key >> np.uint32(digit * _DIGIT)) & _MASK] += 1
    other_keys, other_places = np.empty_like(keys), np.empty_like(places)
    for digit in range(3):
        start = 0
        for value in range(2**_DIGIT):
            here = counts[digit, value]
            counts[digit, value] = start
            start += here
        for i in range(size):
            value = (keys[i] >> np.uint32(digit * _DIGIT)) & _MASK
            to = counts[digit, value]
            counts[digit, value] = to + 1
            other_keys[to], other_places[to] = keys[i], places[i]
        keys, other_keys = other_keys, keys
        places, other_places = other_places, places
    return places
