"""Axes hold all their values, with few round ticks."""

import math

import pytest

from fastvlm_compile.report.axes import bytes_axis, loss_axis, share_axis


@pytest.mark.parametrize("values", [[1.9e6, 9.4e6], [3e8], [1e5, 4e9], [5e6, 5e6]])
def test_bytes_lie_inside_with_some_ticks_between(values: list[float]) -> None:
    axis = bytes_axis(values, start=70, end=880)
    assert all(70 < axis(value) < 880 for value in values)
    assert 2 <= len(axis.ticks) <= 15
    assert all(axis.low <= place <= axis.high for place, _ in axis.ticks)


def test_equal_factors_of_bytes_are_equally_far_apart() -> None:
    axis = bytes_axis([1e6, 16e6], start=0, end=100)
    assert axis(4e6) - axis(2e6) == pytest.approx(axis(8e6) - axis(4e6))


def test_ticks_of_bytes_name_the_unit() -> None:
    axis = bytes_axis([4e8, 3e9], start=0, end=100)
    assert {"400 MB", "1 GB", "1.5 GB", "3 GB"} <= {text for _, text in axis.ticks}


def test_losses_below_the_floor_and_zero_lie_on_it() -> None:
    axis = loss_axis([3e-3, 1e-13], floor=1e-7, start=500, end=100)
    assert axis(1e-13) == axis(0.0) == axis(1e-7) == 500
    assert axis(3e-3) < axis(1e-5) < 500
    assert [text for _, text in axis.ticks] == ["10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²"]


def test_losses_that_are_all_below_the_floor_still_make_an_axis() -> None:
    axis = loss_axis([0.0], floor=1e-7, start=500, end=100)
    assert math.isfinite(axis(0.0))
    assert len(axis.ticks) == 2


def test_losses_above_one_are_inside() -> None:
    axis = loss_axis([35.0], floor=1e-7, start=500, end=100)
    assert 100 < axis(35.0) < 500
    assert axis.ticks[-1][1] == "10²"


@pytest.mark.parametrize(
    ("lowest", "first"),
    [(1.0, "98 %"), (0.984, "98 %"), (0.9701, "97 %"), (0.5, "50 %"), (0.0, "0 %")],
)
def test_shares_begin_at_a_round_number_at_or_below_the_lowest(lowest: float, first: str) -> None:
    axis = share_axis([lowest, 1.0], start=300, end=150)
    assert axis.ticks[0][1] == first
    assert axis.ticks[-1] == (1.0, "100 %")
    assert axis.low <= lowest
    assert axis(1.0) == 150
