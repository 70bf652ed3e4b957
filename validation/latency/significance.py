"""Whether two sets of times differ, and by how much.

Two questions, asked apart: is there a difference (Mann-Whitney U, and an interval of the ratio that
leaves 1 out), and is it large (a threshold, elsewhere). Mann and Whitney 1947; the bootstrap over
blocks is Kuensch 1989 (neighbours in time resemble each other, so they are drawn together), with a
draw of whole processes in front where there are several.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from validation.latency.summary import QUANTILES

ALPHA = 0.01
"""Of the U test: how often chance alone may look like a difference."""
LEVEL = 0.99
"""Of the interval. With a handful of processes a bootstrap is too sure of itself: at 0.95 one of
seven comparisons of equals (constructed, four processes a side) was called different."""
MIN_RUNS = 8
"""Below this on either side the normal approximation of U says nothing at `ALPHA`."""

_NUM_DRAWS = 1000
_MOST_IN_A_BLOCK = 400
"""More samples of a process than this are thinned: the interval's cost, not its width, grows."""
_SEED = 20250131

Floats = npt.NDArray[np.float64]
Blocks = Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Of a ratio of quantiles, new over base."""

    low: float
    high: float

    @property
    def leaves_out_one(self) -> bool:
        """Whether 'no difference' is not among the ratios that the samples allow."""
        return self.low > 1 or self.high < 1


def mann_whitney_p(base: Sequence[float], new: Sequence[float]) -> float:
    """Two-sided p of the U test: normal approximation with ties and continuity correction.

    1 where all samples are equal.
    """
    first, second = np.asarray(base, dtype=np.float64), np.asarray(new, dtype=np.float64)
    n, m = first.size, second.size
    both = np.concatenate([first, second])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]  # equal values share the mean of their ranks
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    total = n + m
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if not variance > 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def ratio_interval(base: Blocks, new: Blocks, *, quantile: str = "p50") -> Interval:
    """Interval of `quantile(new) / quantile(base)` at level `LEVEL`; the seed is fixed.

    Args:
        base: samples by process, in the order of time.
        new: likewise.
        quantile: a name of `QUANTILES`.
    """
    random = np.random.default_rng(_SEED)
    drawn_base = _draws(random, base, QUANTILES[quantile])
    drawn_new = _draws(random, new, QUANTILES[quantile])
    low, high = np.quantile(drawn_new / drawn_base, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high))


def _draws(random: np.random.Generator, blocks: Blocks, level: float) -> Floats:
    """The quantile of each redrawn set of samples."""
    kept = [_thinned(np.asarray(block, dtype=np.float64)) for block in blocks if len(block)]
    result = np.empty(_NUM_DRAWS)
    for draw in range(_NUM_DRAWS):
        chosen = random.integers(len(kept), size=len(kept))
        pieces = [_redrawn(random, kept[index]) for index in chosen]
        result[draw] = np.quantile(np.concatenate(pieces), level)
    return result


def _redrawn(random: np.random.Generator, block: Floats) -> Floats:
    """As many samples, taken in stretches of neighbours; a stretch goes on at the beginning."""
    length = max(1, round(math.sqrt(block.size)))
    starts = random.integers(block.size, size=-(-block.size // length))
    index = (starts[:, None] + np.arange(length)).reshape(-1)[: block.size]
    redrawn: Floats = block[index % block.size]
    return redrawn


def _thinned(block: Floats) -> Floats:
    step = -(-block.size // _MOST_IN_A_BLOCK)
    return block[::step]
