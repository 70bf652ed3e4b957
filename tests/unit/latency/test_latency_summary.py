"""The numbers are those of their definitions; a trend line has the shape of its values."""

import numpy as np
import pytest

from validation.latency.summary import quantile, summarize


def test_a_summary_is_what_numpy_computes() -> None:
    samples = np.random.default_rng(1).lognormal(-4, 0.3, 501)
    found = summarize(samples.tolist())
    assert found.num_runs == 501
    wanted = np.quantile(samples, [0.5, 0.9, 0.95, 0.99])
    assert [found.p50_s, found.p90_s, found.p95_s, found.p99_s] == pytest.approx(wanted)
    assert found.mad_s == pytest.approx(np.median(np.abs(samples - np.median(samples))))
    assert found.cv == pytest.approx(np.std(samples, ddof=1) / np.mean(samples))
    assert found.min_s == samples.min()
    assert quantile(samples.tolist(), "p95") == found.p95_s


def test_known_values_by_hand() -> None:
    found = summarize([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.p50_s, found.mad_s, found.mean_s) == (3.0, 1.0, 22.0)
    assert found.p90_s == pytest.approx(4 + 0.6 * 96)


def test_one_sample_has_no_spread() -> None:
    found = summarize([0.5])
    assert (found.p50_s, found.p99_s, found.mad_s, found.cv) == (0.5, 0.5, 0.0, 0.0)
