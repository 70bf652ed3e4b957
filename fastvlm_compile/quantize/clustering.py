"""Exact weighted 1-D clustering: the table of float16 values with the least squared error.

Clusters of an optimal table are intervals of the sorted values. The cost of an interval is Monge,
also with centroids held to float16: of two centroids, the one that is better for an interval is
better for all that is beyond it. Two things follow, and make it fast (Aggarwal, Schieber, Tokuyama
1994; for k-means Gronlund et al. 2017, "Fast exact k-means, k-medians and Bregman divergence
clustering in 1D"):

- With a price for each cluster instead of their number, the best clusters up to every position take
  one sweep: a position that once became the better start of a cluster stays it.
- The least error is a convex function of the number of clusters, so that a price gives the number
  wanted. A few hundred positions first tell it nearly. Where several numbers are best at one price,
  their partitions are recombined.
"""

import numpy as np

from fastvlm_compile.quantize.clustering_kernels import (
    Doubles,
    Indices,
    Sums,
    compiled,
    cut,
    descend,
    prefix_sums,
    table_of,
)
from fastvlm_compile.quantize.clustering_sweep import Workspace, path, sweep

MAX_EXACT_VALUES = 2**22
"""With more distinct values, which only float32 has, boundaries are first sought among this many
positions and then descend by Lloyd's algorithm over all values: no longer surely the least error.
"""

_CELLS_A_CLUSTER = 16
_BLOCKS_A_CELL = 4
_MAX_GUESSES = 10
_MAX_PRICES = 100
_MAX_DESCENT = 10_000


@compiled
def optimal_table(x: Doubles, w: Doubles, clusters: int, max_exact: int) -> Doubles:
    """At most `clusters` float16 values, ascending and distinct, with the least squared error.

    Args:
        x: [n] distinct, ascending, within float16's range.
        w: [n] weights, positive.
        clusters: K, at least 1.
        max_exact: `MAX_EXACT_VALUES`.

    Returns:
        [k], 1 <= k <= K: fewer where there are fewer values, or fewer float16 that they need. Each
        is the nearest of some value; of two that are as near, the lower counts.
    """
    sums = prefix_sums(x, w)
    if len(x) <= clusters:
        bounds = all_positions(len(x))
    else:
        bounds = optimal_bounds(x, sums, clusters, max_exact)
        descend(x, sums, bounds, _MAX_DESCENT)
    return table_of(x, sums, bounds)


@compiled
def optimal_bounds(x: Doubles, sums: Sums, clusters: int, max_exact: int) -> Indices:
    """[k + 1] positions between which the clusters are, k <= K < n."""
    n = len(x)
    work = workspace(min(n, max_exact) + 1)
    edges, integral = cut(x, sums, _CELLS_A_CLUSTER * clusters, _BLOCKS_A_CELL)
    price = (integral / clusters) ** 3 / 6.0  # what one cluster fewer adds to the error
    max_prices = _MAX_GUESSES
    if 4 * len(edges) >= n:
        edges, max_prices = all_positions(n), _MAX_PRICES
    while True:
        found, price = find_price(at(sums, edges), clusters, price, work, max_prices)
        if max_prices == _MAX_PRICES:
            return at_positions(edges, found)
        max_prices = _MAX_PRICES
        if n <= max_exact:
            edges = all_positions(n)
        else:
            edges, _ = cut(x, sums, max_exact, _BLOCKS_A_CELL)


@compiled
def all_positions(n: int) -> Indices:
    """[n + 1] from 0 to n."""
    positions = np.empty(n + 1, dtype=np.int64)
    for p in range(n + 1):
        positions[p] = p
    return positions


@compiled
def at_positions(edges: Indices, found: Indices) -> Indices:
    """The edges of these indices."""
    positions = np.empty(len(found), dtype=np.int64)
    for k in range(len(found)):
        positions[k] = edges[found[k]]
    return positions


@compiled
def at(sums: Sums, edges: Indices) -> Sums:
    """The sums at some positions; themselves at all."""
    if len(edges) == len(sums.w):
        return sums
    some = Sums(np.empty(len(edges)), np.empty(len(edges)), np.empty(len(edges)))
    for k in range(len(edges)):
        some.w[k] = sums.w[edges[k]]
        some.wx[k] = sums.wx[edges[k]]
        some.wxx[k] = sums.wxx[edges[k]]
    return some


@compiled
def workspace(positions: int) -> Workspace:
    """Room for a sweep over at most so many positions."""
    return Workspace(
        np.empty(positions),
        np.empty(positions, dtype=np.int32),
        np.empty(positions, dtype=np.int32),
        np.empty(positions, dtype=np.int32),
    )


@compiled
def find_price(
    sums: Sums, clusters: int, price: float, work: Workspace, max_prices: int
) -> tuple[Indices, float]:
    """A best partition into K clusters, and the price of a cluster that gives it.

    Args:
        sums: at the positions where clusters may start and end; more than K of them for a partition
            that is best.
        clusters: K.
        price: to begin with.
        work: room for as many positions.
        max_prices: to try. `_MAX_PRICES` leave an interval of them as narrow as rounding; after
            fewer the partition may be worse.

    Returns:
        [k + 1] indices of positions; k < K only if more clusters do not lower the error.
    """
    negligible = 2.0**-120 * (sums.wxx[-1] - sums.wxx[0])
    low, high = 0.0, np.inf
    found = few = many = np.empty(0, dtype=np.int64)
    for attempt in range(max_prices):
        sweep(sums, price, work)
        found = path(work, len(sums.w) - 1)
        count = len(found) - 1
        if count == clusters:
            return found, price
        if count > clusters:
            low, many = price, found
        else:
            high, few = price, found
        if high - low <= 2.0**-50 * low + negligible:
            break
        # The number falls about as the price's cube root.
        price *= (count / clusters) ** 3
        if high < np.inf and (attempt >= _MAX_GUESSES or not low < price < high):
            price = np.sqrt(low * high) if low > 0.0 else 2.0**-10 * high
    if len(few) > 0 and len(many) > 0:
        found = recombine(few, many, clusters)
    elif len(few) > 0:
        found = few
    return found, price


@compiled
def recombine(few: Indices, many: Indices, clusters: int) -> Indices:
    """The start of one partition and the end of another, both best at a price, with K clusters.

    Somewhere an interval (many[i + skip], many[i + skip + 1]] lies within (few[i], few[i + 1]]; to
    exchange their ends does not raise the error, as the cost is Monge, so both results are best.
    """
    skip = len(many) - 1 - clusters
    i = 0
    while few[i + 1] < many[i + skip + 1]:
        i += 1
    bounds = np.empty(clusters + 1, dtype=np.int64)
    for k in range(clusters + 1):
        bounds[k] = few[k] if k <= i else many[k + skip]
    return bounds
