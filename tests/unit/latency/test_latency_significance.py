"""The U test has scipy's values; the interval covers the truth and is the same every time."""

import numpy as np
import pytest
from latency_samples import noisy_block, noisy_blocks

from validation.latency.significance import ALPHA, mann_whitney_p, ratio_interval

# scipy 1.17 `mannwhitneyu(method="asymptotic", use_continuity=True)` gave these.
KNOWN = [
    (range(1, 11), range(6, 16), 0.005075392315273923),
    ([1, 1, 2, 2, 3, 3, 4, 4], [2, 2, 3, 3, 4, 4, 5, 5], 0.14639909928296396),
    ([1, 3, 5, 7, 9, 11], [2, 4, 6, 8, 10, 12, 14, 16, 18], 0.17532581762086596),
    (range(1, 21), range(101, 131), 3.011249584256843e-09),
]


@pytest.mark.parametrize(("base", "new", "wanted"), KNOWN)
def test_p_is_scipys(base: list[float], new: list[float], wanted: float) -> None:
    assert mann_whitney_p(base, new) == pytest.approx(wanted, rel=1e-9)
    assert mann_whitney_p(new, base) == pytest.approx(wanted, rel=1e-9)


def test_equal_samples_differ_by_chance_alone() -> None:
    assert mann_whitney_p([2.0] * 20, [2.0] * 30) == 1.0


def test_p_is_rarely_small_where_nothing_differs() -> None:
    random = np.random.default_rng(5)
    trials = 400
    small = sum(
        mann_whitney_p(random.lognormal(size=40).tolist(), random.lognormal(size=40).tolist())
        < 0.05
        for _ in range(trials)
    )
    # 20 are expected; 38 is four standard deviations more.
    assert 4 < small < 38


def test_the_interval_holds_the_true_ratio_and_leaves_out_one() -> None:
    interval = ratio_interval(noisy_blocks(1), noisy_blocks(2, factor=1.1))
    assert interval.low < 1.1 < interval.high
    assert interval.leaves_out_one
    assert interval.high - interval.low < 0.06


def test_the_interval_of_nothing_holds_one() -> None:
    assert not ratio_interval(noisy_blocks(3), noisy_blocks(4)).leaves_out_one


def test_the_interval_is_the_same_every_time() -> None:
    base, new = noisy_blocks(5), noisy_blocks(6)
    assert ratio_interval(base, new) == ratio_interval(base, new)


def test_neighbours_that_resemble_each_other_widen_the_interval() -> None:
    """A slow wave over the samples: shuffled, the same values look more certain than they are."""
    wave = 1 + 0.1 * np.sin(np.linspace(0, 12, 300))
    block = np.asarray(noisy_block(7, num_runs=300)) * wave
    shuffled = np.random.default_rng(8).permutation(block)
    apart = ratio_interval([block.tolist()], [block.tolist()])
    mixed = ratio_interval([shuffled.tolist()], [shuffled.tolist()])
    assert apart.high - apart.low > 1.3 * (mixed.high - mixed.low)


def test_the_level_is_strict() -> None:
    assert ALPHA <= 0.01
