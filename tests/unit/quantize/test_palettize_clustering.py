"""The clustering is optimal: no table of as many float16 values has a smaller squared error."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from palettize_samples import FINITE_HALVES, KINDS, table_error, weight

from fastvlm_compile.quantize import clustering
from fastvlm_compile.quantize.clustering import (
    MAX_EXACT_VALUES,
    find_price,
    optimal_bounds,
    recombine,
    workspace,
)
from fastvlm_compile.quantize.clustering_kernels import cost, prefix_sums

ROUNDING = 1e-9
"""Errors are small differences of sums of squares, here at most 1e5 times as large."""


def optimal_table(x, w, clusters, max_exact=MAX_EXACT_VALUES):
    return clustering.optimal_table(x, w, clusters, max_exact)


def interval_costs(x, w):
    """[n + 1, n + 1] error of values start .. end with the best float16, tried on both sides."""
    n = len(x)
    costs = np.full((n + 1, n + 1), np.inf)
    for start in range(n):
        for end in range(start + 1, n + 1):
            here, weights = x[start:end], w[start:end]
            mean = np.average(here, weights=weights)
            at = np.searchsorted(FINITE_HALVES, mean)
            near = FINITE_HALVES[max(at - 1, 0) : at + 1]
            costs[start, end] = min((weights * (here - c) ** 2).sum() for c in near)
    return costs


def error(sums, bounds):
    return sum(cost(sums, start, end) for start, end in pairwise(bounds))


def least_errors(x, w):
    """[n + 1] least error of at most 0 .. n clusters, in n^3 steps."""
    costs = interval_costs(x, w)
    reached = np.full(len(x) + 1, np.inf)
    reached[0] = 0.0
    errors = [np.inf]
    for _ in range(len(x)):
        reached = np.minimum(reached, (reached[:, None] + costs).min(axis=0))
        errors.append(reached[-1])
    return errors


def test_no_table_at_all_is_better_on_a_small_input() -> None:
    rng = np.random.default_rng(3)
    x = np.sort(rng.choice(np.arange(-40, 40), size=9, replace=False) * 2.0**-12)
    w = rng.integers(1, 9, size=9).astype(np.float64)
    first, last = np.searchsorted(FINITE_HALVES, x[[0, -1]])
    candidates = FINITE_HALVES[first : last + 1]
    # Float16 is finer than these values; a centroid is near a mean of some of them.
    means = [np.average(x[i:j], weights=w[i:j]) for i in range(9) for j in range(i + 1, 10)]
    places = np.searchsorted(candidates, means)
    near = {candidates[min(max(p + d, 0), len(candidates) - 1)] for p in places for d in (-1, 0)}
    for clusters in (1, 2, 3):
        best = min(table_error(x, w, table) for table in combinations(sorted(near), clusters))
        found = table_error(x, w, optimal_table(x, w, clusters))
        assert found == pytest.approx(best, rel=ROUNDING)


values = st.lists(
    st.one_of(
        st.integers(-30, 30).map(lambda i: i / 16),
        st.floats(-4, 4, width=32),
        st.floats(1, 1 + 2.0**-7, width=32),
        st.floats(-(2.0**-20), 2.0**-20, width=32),
    ),
    min_size=1,
    max_size=24,
    unique=True,
)


@given(x=values, seed=st.integers(0, 2**32 - 1), even=st.booleans())
@settings(max_examples=120, deadline=None)
def test_every_number_of_clusters_reaches_the_least_error(x, seed, even) -> None:
    x = np.unique(np.array(x) + 0.0)
    w = np.ones(len(x))
    if not even:
        w = np.random.default_rng(seed).exponential(size=len(x)) + 1e-3
    noise = 1e-13 * float((w * x * x).sum())
    for clusters, least in enumerate(least_errors(x, w)):
        if clusters == 0:
            continue
        table = optimal_table(x, w, clusters)
        assert len(table) <= clusters
        assert (np.diff(table) > 0).all()
        np.testing.assert_array_equal(table.astype(np.float16).astype(np.float64), table)
        assert table_error(x, w, table) <= least * (1 + ROUNDING) + noise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clusters", [3, 16, 48])
def test_a_realistic_group_reaches_the_least_error(kind, clusters) -> None:
    x, w = np.unique(weight(kind, (4, 30), seed=clusters), return_counts=True)
    x = x.astype(np.float64)
    least = least_errors(x, w)[clusters]
    found = table_error(x, w, optimal_table(x, w.astype(np.float64), clusters))
    assert found == pytest.approx(least, rel=ROUNDING)
    quantiles = np.quantile(x, (np.arange(clusters) + 0.5) / clusters)
    assert table_error(x, w, quantiles) > 1.01 * least, "the negative control"


def test_numbers_of_clusters_that_no_price_gives_are_recombined(monkeypatch) -> None:
    # Equally spaced, so that the least error is linear between some numbers of clusters.
    x, w = np.arange(48) / 16, np.ones(48)
    calls = []

    def spy(few, many, clusters):
        calls.append(clusters)
        return recombine(few, many, clusters)

    monkeypatch.setattr(clustering, "recombine", spy)
    monkeypatch.setattr(clustering, "find_price", find_price.py_func)
    least, sums = least_errors(x, w), prefix_sums(x, w)
    for clusters in range(1, 48):
        found = table_error(x, w, optimal_table(x, w, clusters))
        assert found == pytest.approx(least[clusters], rel=ROUNDING, abs=1e-12)
        bounds = optimal_bounds.py_func(x, sums, clusters, MAX_EXACT_VALUES)
        assert len(bounds) == clusters + 1
        assert error(sums, bounds) == pytest.approx(least[clusters], rel=ROUNDING, abs=1e-12)
    assert calls, "no number needed it: the test shows nothing"


def test_a_price_gives_its_partition_the_wanted_number_of_intervals() -> None:
    x = np.random.default_rng(0).choice(1000, 500, replace=False) / 1024
    sums = prefix_sums(np.sort(x), np.ones(500))
    for clusters in (1, 7, 100, 499):
        bounds, _ = find_price(sums, clusters, 1.0, workspace(501), 100)
        assert len(bounds) == clusters + 1
        assert bounds[0] == 0
        assert bounds[-1] == 500
        if clusters == 7:
            start, middle, end = bounds[2:5]
            for moved in (middle - 5, middle + 5):
                here = cost(sums, start, middle) + cost(sums, middle, end)
                assert cost(sums, start, moved) + cost(sums, moved, end) > here


def test_beyond_the_limit_of_exactness_the_error_is_all_but_least() -> None:
    x = np.unique(np.random.default_rng(5).standard_t(4, 20_000) * 0.03)
    w = np.ones(len(x))
    exact = table_error(x, w, optimal_table(x, w, 16))
    near = table_error(x, w, optimal_table(x, w, 16, max_exact=600))
    assert exact * (1 - ROUNDING) <= near <= exact * 1.001


def test_outliers_do_not_blur_the_others() -> None:
    x = np.unique(weight("float16", (4, 600)).astype(np.float64))
    w = np.ones(len(x))
    far = np.concatenate(([-60000.0], x, [49152.0, 65504.0]))
    table = optimal_table(far, np.ones(len(far)), 19)
    np.testing.assert_array_equal(table[[0, 17, 18]], [-60000, 49152, 65504])
    inner = table_error(x, w, table[1:17])
    assert inner == pytest.approx(table_error(x, w, optimal_table(x, w, 16)), rel=ROUNDING)
