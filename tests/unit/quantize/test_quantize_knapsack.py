"""The budgeted choice is the best of all choices, not a good guess."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvlm_compile.quantize import knapsack
from fastvlm_compile.quantize.knapsack import (
    BudgetError,
    Option,
    cheapest_loss,
    fewest_bytes,
)

OPTIONS = st.lists(
    st.lists(
        st.builds(
            Option,
            size_bytes=st.integers(1, 60).map(lambda n: 8 * n),
            loss=st.floats(0, 10, allow_nan=False),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=5,
).map(lambda each: {f"t{index}": options for index, options in enumerate(each)})


def total(options, chosen):
    picked = [options[name][index] for name, index in chosen.items()]
    return sum(o.size_bytes for o in picked), sum(o.loss for o in picked)


def all_choices(options):
    for indices in itertools.product(*(range(len(each)) for each in options.values())):
        yield dict(zip(options, indices, strict=True))


@given(OPTIONS, st.floats(0, 1))
@settings(deadline=None)
def test_no_choice_within_the_budget_loses_less(options, share):
    sizes = [total(options, choice)[0] for choice in all_choices(options)]
    budget = int(min(sizes) + share * (max(sizes) - min(sizes)))
    size, loss = total(options, cheapest_loss(options, budget))
    assert size <= budget
    fitting = [total(options, c)[1] for c in all_choices(options) if total(options, c)[0] <= budget]
    assert loss == pytest.approx(min(fitting), abs=1e-9)


@given(OPTIONS, st.floats(0, 1))
@settings(deadline=None)
def test_no_choice_above_the_quality_floor_is_smaller(options, share):
    losses = [total(options, choice)[1] for choice in all_choices(options)]
    floor = min(losses) + share * (max(losses) - min(losses)) + 1e-9
    size, loss = total(options, fewest_bytes(options, floor))
    assert loss <= floor
    assert size == min(
        total(options, c)[0] for c in all_choices(options) if total(options, c)[1] <= floor
    )


def test_a_greedy_choice_by_loss_per_byte_would_be_worse():
    options = {
        "large": [Option(size_bytes=0, loss=10), Option(size_bytes=100, loss=0)],
        "small": [Option(size_bytes=0, loss=2), Option(size_bytes=10, loss=0)],
    }
    # "small" saves more per byte; taking it first leaves no room for "large".
    assert cheapest_loss(options, 100) == {"large": 1, "small": 0}


def test_rounded_sizes_never_exceed_the_budget(monkeypatch):
    monkeypatch.setattr(knapsack, "MAX_STATES", 16)
    options = {
        f"t{n}": [Option(size_bytes=101 + n, loss=1.0 + n), Option(size_bytes=997 + n, loss=0.0)]
        for n in range(12)
    }
    size, loss = total(options, cheapest_loss(options, 6_000))
    assert size <= 6_000
    assert loss < total(options, dict.fromkeys(options, 0))[1]


def test_a_budget_below_the_smallest_choice_is_refused_with_both_numbers():
    with pytest.raises(BudgetError, match="64 bytes together, the budget is 63"):
        cheapest_loss({"t": [Option(size_bytes=64, loss=0)]}, 63)


def test_a_floor_that_nothing_reaches_is_refused():
    with pytest.raises(BudgetError, match=r"lose 0\.5"):
        fewest_bytes({"t": [Option(size_bytes=64, loss=0.5)]}, 0.1)
