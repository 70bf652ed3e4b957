"""Palettization: for each group of output channels the float16 table with the least squared error.

16-bit weights (float16 or bfloat16 in float32) have few distinct values in a group; these are
counted and clustered exactly (`clustering`). Other float32 weights are sorted first, and likewise
exact up to `clustering.MAX_EXACT_VALUES` distinct values in a group.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.scheme import Palette, SchemeError, Shape, check_scheme
from fastvlm_compile.quantize.tensor import Codes, Floats, Halves, QuantizedTensor

if TYPE_CHECKING:
    from fastvlm_compile.quantize.palette_kernels import Format

_HALF_MAX = 65504.0
_HALF_MIN = 2.0**-24

_MIN_COUNTED = 4096
"""Smaller groups are sorted: to walk 65536 counters takes longer."""

_CHUNK_VALUES = 2**19
"""Weights that a thread takes at a time: enough to be worth a call, few enough to share out."""

Doubles = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint16]


def palettize(
    weight: Floats,
    scheme: Palette,
    importance: Floats | None = None,
    *,
    num_threads: int | None = None,
) -> QuantizedTensor:
    """The codes and tables with the least sum of importance times squared error in each group.

    A table ascends; where fewer values do, its last one is repeated. Each value has the code of the
    nearest entry, of two as near the lower. With `channel_scale`, output channels are first divided
    by their largest magnitude in float16 (1 for a channel of zeros), and errors count as they are
    after the multiplication. The result is the same for any number of threads.

    Args:
        weight: [O, I] or [O, I, ...], finite, within float16's range.
        scheme: its groups divide O.
        importance: [I], not negative; by default, and where none is above 0, all are 1.
        num_threads: that work at a time; by default one for each processor.

    Raises:
        SchemeError: the scheme cannot hold the weight, or a value or importance is not as above.
    """
    check_scheme(scheme, weight.shape)
    rows = np.ascontiguousarray(weight, dtype=np.float32).reshape(weight.shape[0], -1)
    _check_range(rows)
    inputs = _spread(importance, weight.shape)
    scales: Halves = np.empty(0, dtype=np.float16)
    squares: Doubles = np.ones(len(rows))
    if scheme.channel_scale:
        scales = _channel_scales(rows)
        rows = rows / scales.astype(np.float32)[:, None]
        squares = np.square(scales.astype(np.float64))
    groups = scheme.num_groups(weight.shape)
    values = rows.reshape(groups, -1)
    tables = np.empty((groups, 2**scheme.bits))
    codes: Codes = np.empty(values.shape, dtype=np.uint8)
    shares = squares.reshape(groups, -1)

    def run(some: slice) -> None:
        _palettize_groups(values[some], inputs, shares[some], tables[some], codes[some])

    _over_groups(run, values.shape, num_threads or os.cpu_count() or 1)
    return QuantizedTensor(
        scheme=scheme,
        codes=codes.reshape(weight.shape),
        scales=scales,
        zero_points=np.empty(0, dtype=np.uint8),
        tables=tables.astype(np.float16),
    )


def _check_range(rows: Floats) -> None:
    largest = max(float(rows.max()), -float(rows.min()))  # NaN stays NaN
    if not largest <= _HALF_MAX:
        raise SchemeError(
            f"a weight of {largest:g} cannot be palettized: tables are float16, which ends at "
            f"{_HALF_MAX:g}",
            hint="is the checkpoint damaged? keep the tensor in float32 if it is not",
        )


def _spread(importance: Floats | None, shape: Shape) -> Floats:
    """[I] -> [F], empty where all weigh the same."""
    from fastvlm_compile.quantize.affine_rows import spread_importance

    if importance is None:
        return np.empty(0, dtype=np.float32)
    return spread_importance(importance, shape)


def _channel_scales(rows: Floats) -> Halves:
    """[O] each channel's largest magnitude in float16, 1 for a channel of zeros."""
    largest = np.abs(rows).max(axis=1)
    scales = np.maximum(largest, np.float32(_HALF_MIN)).astype(np.float16)
    return np.where(largest > 0, scales, np.float16(1))


def _over_groups(run: Callable[[slice], None], shape: Shape, num_threads: int) -> None:
    """Call `run` on runs of groups; what a group becomes does not depend on how they are cut."""
    step = max(1, _CHUNK_VALUES // shape[1])
    chunks = [slice(start, start + step) for start in range(0, shape[0], step)]
    if num_threads == 1 or len(chunks) == 1:
        for chunk in chunks:
            run(chunk)
        return
    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        list(pool.map(run, chunks))


def _palettize_groups(
    values: Floats, importance: Floats, squares: Doubles, tables: Doubles, codes: Codes
) -> None:
    """Write tables [G, K] and codes [G, N] of values [G, N], by counting where that is possible."""
    from fastvlm_compile.quantize import palette_kernels as kernels
    from fastvlm_compile.quantize.clustering import MAX_EXACT_VALUES, optimal_table

    counted = None
    if values.shape[1] >= _MIN_COUNTED and (squares == 1).all():
        counted = _as_halves(values) or _as_bfloats(values)
    clusters = tables.shape[1]
    room = kernels.Room(
        counts=np.zeros(2**16, dtype=np.uint32),
        weights=np.zeros(2**16),
        x=np.empty(2**16),
        w=np.empty(2**16),
    )
    for group in range(len(values)):
        if counted is not None:
            words, form = counted[0][group], counted[1]
            distinct = kernels.distinct_words(words, form, importance, room)
            table = optimal_table(*distinct, clusters, MAX_EXACT_VALUES)
            kernels.encode_words(words, form, table, codes[group])
        else:
            row, weights = values[group], squares[group]
            distinct = kernels.distinct_values(row, importance, weights)
            table = optimal_table(*distinct, clusters, MAX_EXACT_VALUES)
            kernels.encode_values(row, table, codes[group])
        tables[group, : len(table)] = table
        tables[group, len(table) :] = table[-1]


def _as_halves(values: Floats) -> "tuple[Words, Format] | None":
    """Bit patterns and their format, if all values are float16."""
    from fastvlm_compile.quantize.palette_kernels import Format, half_words

    words = np.empty(values.shape, dtype=np.uint16)
    if not half_words(values.reshape(-1), words.reshape(-1)):
        return None
    patterns = _finite_patterns(0x7C00)
    return words, Format(words=patterns, values=patterns.view(np.float16).astype(np.float64))


def _as_bfloats(values: Floats) -> "tuple[Words, Format] | None":
    """Likewise, if all values are bfloat16, the upper half of a float32."""
    from fastvlm_compile.quantize.palette_kernels import Format

    bits = values.view(np.uint32)
    if (bits & 0xFFFF).any():
        return None
    patterns = _finite_patterns(0x7F80)
    meaning = (patterns.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return (bits >> 16).astype(np.uint16), Format(words=patterns, values=meaning)


def _finite_patterns(infinity: int) -> Words:
    """Bit patterns of the finite numbers of a 16-bit format, their values ascending."""
    positive = np.arange(infinity, dtype=np.uint16)
    return np.concatenate((positive[::-1] | np.uint16(0x8000), positive))
