"""Compiled parts of 1-D clustering: costs of intervals, the sweep at a price, Lloyd's descent.

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
Places = npt.NDArray[np.int32]

compiled = numba.njit(nogil=True, error_model="numpy")


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


class Workspace(NamedTuple):
    """What a sweep writes, for positions 0 .. n.

    Attributes:
        least: [n + 1] least error below each position, prices included.
        before: [n + 1] where the last cluster of it starts.
        starts: [n + 1] starts of clusters that are best for some end ahead, ascending.
        since: [n + 1] the end from which each of them is best.
    """

    least: Doubles
    before: Places
    starts: Places
    since: Places


@compiled
def nearest_half(value: float) -> float:
    """A float16 nearest to a float64 below 65520 in size."""
    if abs(value) < 2.0**-14:  # float16's subnormals are multiples of 2^-24
        return (value + 1.5 * 2.0**28) - 1.5 * 2.0**28
    # Veltkamp's splitting leaves the upper 11 of 53 bits (Dekker 1971).
    wide = value * (2.0**42 + 1.0)
    return wide - (wide - value)


@compiled
def cost(sums: Sums, start: int, end: int) -> float:
    """Squared error of (start, end], end > start, with the float16 nearest to its mean for all.

    No other float16 does better: the error grows with the distance from the mean.
    """
    w = sums.w[end] - sums.w[start]
    wx = sums.wx[end] - sums.wx[start]
    mean: float = wx / w
    off = nearest_half(mean) - mean
    result: float = (sums.wxx[end] - sums.wxx[start]) - mean * wx + w * (off * off)
    return result


@compiled
def centre(sums: Sums, start: int, end: int) -> float:
    """The float16 nearest to the mean of (start, end]; NaN of an empty one."""
    if end <= start:
        return np.nan
    return nearest_half((sums.wx[end] - sums.wx[start]) / (sums.w[end] - sums.w[start]))


@compiled
def centres(sums: Sums, bounds: Indices) -> Doubles:
    """[K] what stands for each cluster of bounds [K + 1]; NaN for an empty one."""
    values = np.empty(len(bounds) - 1)
    for k in range(len(values)):
        values[k] = centre(sums, bounds[k], bounds[k + 1])
    return values


@compiled
def prefix_sums(x: Doubles, w: Doubles) -> Sums:
    """Sums at all n + 1 positions, less those at the first value that is not negative.

    Costs are differences of these: so they are small where values are, whatever outliers there
    are on either side.
    """
    sums = Sums(np.zeros(len(x) + 1), np.zeros(len(x) + 1), np.zeros(len(x) + 1))
    zero = first_above(x, -(2.0**-1074), 0, len(x))
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
def sweep(sums: Sums, price: float, work: Workspace) -> None:
    """Least error and best last cluster below every position, each cluster at this price."""
    least, before, starts, since = work
    last = len(sums.w) - 1
    least[0] = 0.0
    starts[0], since[0] = 0, 1
    head = tail = 0
    for at in range(1, last + 1):
        while head < tail and since[head + 1] <= at:
            head += 1
        start = starts[head]
        least[at] = least[start] + cost(sums, start, at) + price
        before[at] = start
        if at == last:
            return
        while tail > head and better(sums, least, at, starts[tail], max(since[tail], at + 1)):
            tail -= 1
        begin = max(since[tail], at + 1)
        if tail == head and better(sums, least, at, starts[tail], begin):
            starts[tail], since[tail] = at, begin
            continue
        end = first_end(sums, least, at, starts[tail], begin)
        if end <= last:
            tail += 1
            starts[tail], since[tail] = at, end


@compiled
def better(sums: Sums, least: Doubles, start: int, rival: int, end: int) -> bool:
    """Whether a cluster up to `end` had better start at `start` than at `rival`, before it."""
    ours: float = least[start] + cost(sums, start, end)
    theirs: float = least[rival] + cost(sums, rival, end)
    return ours < theirs


@compiled
def first_end(sums: Sums, least: Doubles, start: int, rival: int, no: int) -> int:
    """The first end after `no` for which `start` is better than `rival`; beyond the last if none.

    It is mostly near, hence growing steps before halving ones.
    """
    last = len(sums.w) - 1
    step = 1
    yes = no
    while True:
        yes = min(no + step, last)
        if yes == no:
            return last + 1
        if better(sums, least, start, rival, yes):
            break
        no = yes
        step *= 2
    while yes - no > 1:
        middle = (no + yes) >> 1
        if better(sums, least, start, rival, middle):
            yes = middle
        else:
            no = middle
    return yes


@compiled
def path(work: Workspace, last: int) -> Indices:
    """The positions between the best clusters, from 0 to `last`."""
    count = 1
    at = last
    while at > 0:
        at = work.before[at]
        count += 1
    found = np.empty(count, dtype=np.int64)
    at = last
    for k in range(count - 1, -1, -1):
        found[k] = at
        at = work.before[at]
    return found
