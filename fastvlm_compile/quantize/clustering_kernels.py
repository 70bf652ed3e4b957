"""Compiled parts of 1-D clustering: costs of intervals, first cuts, Lloyd's descent, tables.

n values stand in ascending order; position p, 0 <= p <= n, is the gap after the first p of them. A
cluster is an interval (a, b] of positions. Everything is float64 and taken in a fixed order, so
that results depend neither on threads nor on the processor.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

compiled = numba.njit(nogil=True, error_model="numpy")
"""Not cached on disk: numba's cache misses changes in what a function calls from another file."""


class Sums(NamedTuple):
    """Sums over all values below a position, for some positions in ascending order.

    Differences count: all of a kind may be off by the same.

    Attributes:
        w: weights.
        wx: weights times values.
        wxx: weights times squared values.
    """

    w: Doubles
    wx: Doubles
    wxx: Doubles


@compiled
def nearest_half(value: float) -> float:
    """A float16 nearest to a float64 below 65520 in size."""
    # Veltkamp's splitting leaves the upper 11 of 53 bits (Dekker 1971).
    wide = value * (2.0**42 + 1.0)
    normal = wide - (wide - value)
    # Subnormal float16 are multiples of 2^-24.
    subnormal = (value + 1.5 * 2.0**28) - 1.5 * 2.0**28
    return subnormal if abs(value) < 2.0**-14 else normal


@compiled
def cost(sums: Sums, start: int, end: int) -> float:
    """Squared error of (start, end], end > start, if the float16 nearest to the mean is for all.

    No other float16 does better: the error grows with the distance from the mean.
    """
    mass = sums.w[end] - sums.w[start]
    moment = sums.wx[end] - sums.wx[start]
    mean = moment / mass
    off = nearest_half(mean) - mean
    result: float = (sums.wxx[end] - sums.wxx[start]) - mean * moment + mass * (off * off)
    return result


@compiled
def centre(sums: Sums, start: int, end: int) -> float:
    """The float16 nearest to the mean of (start, end]; NaN of an empty one."""
    if end <= start:
        return np.nan
    return nearest_half((sums.wx[end] - sums.wx[start]) / (sums.w[end] - sums.w[start]))


@compiled
def prefix_sums(x: Doubles, w: Doubles) -> Sums:
    """Sums at all n + 1 positions, less those at the first value that is not negative.

    Costs are differences of these: so they are small where values are, whatever outliers there
    are on either side.
    """
    sums = Sums(np.empty(len(x) + 1), np.empty(len(x) + 1), np.empty(len(x) + 1))
    zero = first_above(x, -(2.0**-1074), 0, len(x))
    sums.w[zero] = sums.wx[zero] = sums.wxx[zero] = 0.0
    accumulate(x, w, sums, zero, len(x))
    accumulate(x, w, sums, zero, 0)
    return sums


@compiled
def accumulate(x: Doubles, w: Doubles, sums: Sums, start: int, end: int) -> None:
    """Sum up or, where `end` is before `start`, down; roundings are carried along (Kahan 1965)."""
    step = 1 if end > start else -1
    lost_w = lost_wx = lost_wxx = 0.0
    for here in range(start, end, step):
        there = here + step
        i = min(here, there)
        wx = w[i] * x[i]
        add = step * w[i] - lost_w
        add_x = step * wx - lost_wx
        add_xx = step * (wx * x[i]) - lost_wxx
        sums.w[there] = sums.w[here] + add
        sums.wx[there] = sums.wx[here] + add_x
        sums.wxx[there] = sums.wxx[here] + add_xx
        lost_w = (sums.w[there] - sums.w[here]) - add
        lost_wx = (sums.wx[there] - sums.wx[here]) - add_x
        lost_wxx = (sums.wxx[there] - sums.wxx[here]) - add_xx


@compiled
def cut(x: Doubles, sums: Sums, cells: int, blocks_a_cell: int) -> tuple[Indices, float]:
    """Positions that cut the values into about so many cells, as a good quantizer would.

    Its density is the cube root of the values' density (Panter and Dite 1951). The integral of that
    root is returned beside: the least error of K clusters is about its cube over 12 K^2.
    """
    n = len(x)
    step = max(1, n // (blocks_a_cell * cells))
    reached = np.empty(-(-n // step))
    integral = 0.0
    for block in range(len(reached)):
        start, end = block * step, min((block + 1) * step, n)
        width = x[min(end, n - 1)] - x[start]
        integral += np.cbrt((sums.w[end] - sums.w[start]) * width * width)
        reached[block] = integral
    edges = np.empty(min(n, cells + 1) + 1, dtype=np.int64)
    edges[0], count, done = 0, 1, 0
    for block in range(len(reached)):
        start, end = block * step, min((block + 1) * step, n)
        cell = int(reached[block] * (cells / integral))
        # A block ends as many cells as its share is; in the tails that can be several.
        ends = min(cell - done, end - start)
        for rank in range(1, ends + 1):
            edges[count] = start + (end - start) * rank // ends
            count += 1
        done = cell
    if edges[count - 1] < n:
        edges[count] = n
        count += 1
    return edges[:count], integral


@compiled
def first_above(x: Doubles, threshold: float, low: int, high: int) -> int:
    """The first index in [low, high) whose value is above a threshold, else `high`."""
    while low < high:
        middle = (low + high) >> 1
        if x[middle] > threshold:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def descend(x: Doubles, sums: Sums, bounds: Indices, max_steps: int) -> None:
    """Lloyd's algorithm over float16 centroids, in place; no step raises the error.

    Args:
        x: [n] ascending.
        sums: at all positions.
        bounds: [K + 1] from 0 to n; a cluster that is empty stays so.
        max_steps: it ends there if it has not converged.
    """
    for _ in range(max_steps):
        moved = False
        below, above = np.nan, centre(sums, bounds[0], bounds[1])
        for k in range(1, len(bounds) - 1):
            below, above = above, centre(sums, bounds[k], bounds[k + 1])
            if np.isnan(below) or np.isnan(above):
                continue
            # Not beyond the next clusters, in which the others' values are.
            place = first_above(x, 0.5 * (below + above), bounds[k - 1], bounds[k + 1])
            moved = moved or place != bounds[k]
            bounds[k] = place
        if not moved:
            return


@compiled
def table_of(x: Doubles, sums: Sums, bounds: Indices) -> Doubles:
    """What stands for the clusters: ascending, distinct, each the nearest of some value."""
    table = np.empty(len(bounds) - 1)
    size = 0
    for k in range(len(table)):
        value = centre(sums, bounds[k], bounds[k + 1]) + 0.0  # no negative zero
        if not np.isnan(value) and (size == 0 or value > table[size - 1]):
            table[size] = value
            size += 1
    kept = np.empty(size)
    count = place = 0
    for k in range(size):
        end = len(x)
        if k + 1 < size:  # the middle is exact; a value there goes to the lower entry
            end = first_above(x, 0.5 * (table[k] + table[k + 1]), place, end)
        if end > place:
            kept[count] = table[k]
            count += 1
        place = end
    return kept[:count]
