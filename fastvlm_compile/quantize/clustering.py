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

from dataclasses import dataclass

import numpy as np

from fastvlm_compile.quantize.clustering_kernels import (
    Doubles,
    Indices,
    Sums,
    Workspace,
    centres,
    descend,
    path,
    prefix_sums,
    sweep,
)

MAX_EXACT_VALUES = 2**22
"""With more distinct values, which only float32 has, boundaries are first sought among this many
positions and then descend by Lloyd's algorithm over all values: no longer surely the least error.
"""

_CELLS_A_CLUSTER = 16
_BLOCKS_A_CELL = 4
_MAX_GUESSES = 10
_MAX_PRICES = 100
_MAX_DESCENT = 10_000


def optimal_table(x: Doubles, w: Doubles, clusters: int) -> Doubles:
    """At most `clusters` float16 values, ascending and distinct, with the least squared error.

    Args:
        x: [n] distinct, ascending, within float16's range.
        w: [n] weights, positive.
        clusters: K, at least 1.

    Returns:
        [k], 1 <= k <= K: fewer where there are fewer values, or fewer float16 that they need. Each
        is the nearest of some value; of two that are as near, the lower counts.
    """
    sums = prefix_sums(x, w)
    if len(x) <= clusters:
        bounds = np.arange(len(x) + 1)
    else:
        bounds = optimal_bounds(x, sums, clusters)
        descend(x, sums, bounds, _MAX_DESCENT)
    table = centres(sums, bounds)
    table = np.unique(table[np.isfinite(table)] + 0.0)  # no negative zero
    codes = np.searchsorted(middles(table), x)
    return table[np.unique(codes)]


def middles(table: Doubles) -> Doubles:
    """[k - 1] between neighbours; exact, and a value on it goes to the lower one."""
    return 0.5 * (table[1:] + table[:-1])


def optimal_bounds(x: Doubles, sums: Sums, clusters: int) -> Indices:
    """[k + 1] positions between which the clusters are, k <= K < n."""
    cells = cells_of(x, sums, _CELLS_A_CLUSTER * clusters)
    price = (cells.integral / clusters) ** 3 / 6  # what one cluster fewer adds to the error
    if 4 * len(cells.edges) < len(x):
        _, price = find_price(at(sums, cells.edges), clusters, price, _MAX_GUESSES)
    if len(x) <= MAX_EXACT_VALUES:
        return find_price(sums, clusters, price, _MAX_PRICES)[0]
    edges = cells_of(x, sums, MAX_EXACT_VALUES).edges
    return edges[find_price(at(sums, edges), clusters, price, _MAX_PRICES)[0]]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Values cut at some positions.

    Attributes:
        edges: positions, ascending, with 0 and n.
        integral: of the cube root of the values' density; its cube over 12 K^2 is about the least
            error of K clusters (Panter and Dite 1951).
    """

    edges: Indices
    integral: float


def cells_of(x: Doubles, sums: Sums, count: int) -> Cells:
    """About so many cells, each with its share of the cube root of the density, as is optimal."""
    n = len(x)
    step = max(1, n // (_BLOCKS_A_CELL * count))
    blocks = np.append(np.arange(0, n, step), n)
    sizes, widths = np.diff(blocks), np.diff(x[np.minimum(blocks, n - 1)])
    reached = np.cumsum(np.cbrt(np.diff(sums.w[blocks]) * widths * widths))
    cell = np.floor(reached * (count / reached[-1]))
    # A block ends as many cells as its share is; in the tails that can be several.
    ends = np.minimum(np.diff(cell, prepend=0).astype(np.int64), sizes)
    block = np.repeat(np.arange(len(ends)), ends)
    rank = np.arange(1, len(block) + 1) - np.repeat(np.cumsum(ends) - ends, ends)
    inner = blocks[block] + sizes[block] * rank // ends[block]
    edges = np.unique(np.concatenate(([0], inner, [n])))
    return Cells(edges=edges, integral=float(reached[-1]))


def at(sums: Sums, edges: Indices) -> Sums:
    """The sums at some positions."""
    return Sums(sums.w[edges], sums.wx[edges], sums.wxx[edges])


def find_price(sums: Sums, clusters: int, price: float, max_prices: int) -> tuple[Indices, float]:
    """A best partition into K clusters, and the price of a cluster that gives it.

    Args:
        sums: at the positions where clusters may start and end; more than K of them for a partition
            that is best.
        clusters: K.
        price: to begin with.
        max_prices: to try. `_MAX_PRICES` leave an interval of them as narrow as rounding; after
            fewer the partition may be worse.

    Returns:
        [k + 1] indices of positions; k < K only if more clusters do not lower the error.
    """
    work = workspace(len(sums.w))
    negligible = 2.0**-120 * (sums.wxx[-1] - sums.wxx[0])
    low, high = 0.0, np.inf
    few: Indices | None = None
    many: Indices | None = None
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
            price = 0.5 * (low + high) if low > 0 else 2.0**-10 * high
    if few is not None and many is not None:
        return recombine(few, many, clusters), price
    return found if few is None else few, price


def workspace(positions: int) -> Workspace:
    """Room for a sweep."""
    return Workspace(
        np.empty(positions),
        np.empty(positions, dtype=np.int32),
        np.empty(positions, dtype=np.int32),
        np.empty(positions, dtype=np.int32),
    )


def recombine(few: Indices, many: Indices, clusters: int) -> Indices:
    """The start of one partition and the end of another, both best at a price, with K clusters.

    Somewhere an interval (many[i + skip], many[i + skip + 1]] lies within (few[i], few[i + 1]]; to
    exchange their ends does not raise the error, as the cost is Monge, so both results are best.
    """
    skip = len(many) - 1 - clusters
    ends = np.minimum(np.arange(1, len(few)) + skip, len(many) - 1)
    i = int(np.flatnonzero(few[1:] >= many[ends])[0])
    return np.concatenate((few[: i + 1], many[i + skip + 1 :]))
