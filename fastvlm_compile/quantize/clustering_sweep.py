"""Compiled sweep over positions: the best clusters up to each, every cluster at a price.

A position that is the better start for a cluster up to some end is so for all ends beyond (the cost
is Monge). So the starts that are best for some end ahead form a queue, and each new position pops
those from its back that it beats before they come into use (Hirschberg and Larmore 1987).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.clustering_kernels import (
    Doubles,
    Indices,
    Sums,
    compiled,
    cost,
    nearest_half,
)

Places = npt.NDArray[np.int32]

_LANES = 8
"""Ends that are looked at together."""


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
        while True:
            rival, begin = starts[tail], max(since[tail], at + 1)
            several = begin + _LANES <= last + 1
            if several:
                worse = count_worse(sums, least, at, rival, begin)
            else:
                worse = 1 - better(sums, least, at, rival, begin)
            if worse > 0 or tail == head:
                break
            tail -= 1
        if worse == 0:
            starts[tail], since[tail] = at, begin
            continue
        end = begin + worse
        if worse == _LANES or not several:
            end = first_end(sums, least, at, rival, end - 1)
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
    """The first end after `no` for which `start` is better; beyond the last if there is none.

    It is mostly near, hence growing steps before halving ones.
    """
    last = len(sums.w) - 1
    step = 1
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
def count_worse(sums: Sums, least: Doubles, start: int, rival: int, begin: int) -> int:
    """For how many of some ends from `begin` on `start` is not better: those before it first is.

    This is `better`, written out and without a branch: so the compiler makes vectors of the ends.
    """
    end_w = sums.w[begin : begin + _LANES]
    end_wx = sums.wx[begin : begin + _LANES]
    end_wxx = sums.wxx[begin : begin + _LANES]
    w, wx, wxx = sums.w[start], sums.wx[start], sums.wxx[start]
    rival_w, rival_wx, rival_wxx = sums.w[rival], sums.wx[rival], sums.wxx[rival]
    count = 0
    for i in range(_LANES):
        mass, moment = end_w[i] - w, end_wx[i] - wx
        mean = moment / mass
        off = nearest_half(mean) - mean
        ours = (end_wxx[i] - wxx) - mean * moment + mass * (off * off)
        mass, moment = end_w[i] - rival_w, end_wx[i] - rival_wx
        mean = moment / mass
        off = nearest_half(mean) - mean
        theirs = (end_wxx[i] - rival_wxx) - mean * moment + mass * (off * off)
        count += not (least[start] + ours < least[rival] + theirs)
    return count


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
