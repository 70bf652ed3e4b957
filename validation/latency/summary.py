"""A few numbers for many samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
MAD_TO_SIGMA = 1.4826
"""Of normal samples the standard deviation is this many median absolute deviations."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Times in seconds."""

    num_runs: int
    min_s: float
    mean_s: float
    p50_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    mad_s: float
    """Median absolute deviation from the median: the spread that outliers do not move."""
    cv: float
    """Standard deviation (of a sample, n - 1) over the mean."""


def summarize(samples_s: Sequence[float]) -> Summary:
    """Summarizes at least one sample; quantiles interpolate linearly between neighbours."""
    values = np.asarray(samples_s, dtype=np.float64)
    assert values.size > 0, "no samples"
    p50, p90, p95, p99 = (float(q) for q in np.quantile(values, list(QUANTILES.values())))
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return Summary(
        num_runs=values.size,
        min_s=float(values.min()),
        mean_s=mean,
        p50_s=p50,
        p90_s=p90,
        p95_s=p95,
        p99_s=p99,
        mad_s=float(np.median(np.abs(values - p50))),
        cv=deviation / mean,
    )


def quantile(samples_s: Sequence[float], name: str) -> float:
    """A quantile by its name, of `QUANTILES`."""
    return float(np.quantile(np.asarray(samples_s, dtype=np.float64), QUANTILES[name]))
