"""Values to pixels, and where the ticks stand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LINEAR_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
_MAX_STEPS = 5
_LEAST_SPAN = 0.02
"""Of shares: a single question of many must not look like a fall."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A stretch of values over a stretch of pixels.

    Attributes:
        low, high: values at the two ends.
        start, end: pixels there; `start` is larger where the axis points up.
        ticks: values and what is written beside them.
        logarithmic: whether equal factors, not equal differences, are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool

    def __call__(self, value: float) -> float:
        """Pixels of a value; one beyond an end is put there."""
        clamped = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(clamped / self.low) / math.log(self.high / self.low)
        else:
            share = (clamped - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def bytes_axis(values: Sequence[float], *, start: float, end: float) -> Axis:
    """Logarithmic, with ticks at round numbers and some room at both ends.

    Args:
        values: at least one, above 0.
        start, end: pixels.
    """
    return _round_axis(values, _size, start=start, end=end)


def time_axis(values: Sequence[float], *, start: float, end: float) -> Axis:
    """As `bytes_axis`, of seconds."""
    return _round_axis(values, _time, start=start, end=end)


def rate_axis(values: Sequence[float], *, start: float, end: float) -> Axis:
    """As `bytes_axis`, of plain numbers."""
    return _round_axis(values, lambda value: f"{value:g}", start=start, end=end)


def _round_axis(
    values: Sequence[float], written: Callable[[float], str], *, start: float, end: float
) -> Axis:
    low, high = min(values) / 1.15, max(values) * 1.25
    if high / low < 4:
        middle = math.sqrt(low * high)
        low, high = middle / 2, middle * 2
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low > 12 else (1, 1.5, 2, 3, 4, 6, 8)
    places = [digit * 10.0**exponent for exponent in exponents for digit in digits]
    ticks = tuple((place, written(place)) for place in places if low <= place <= high)
    return Axis(low=low, high=high, start=start, end=end, ticks=ticks, logarithmic=True)


def loss_axis(values: Sequence[float], *, floor: float, start: float, end: float) -> Axis:
    """Logarithmic over whole powers of ten, from `floor` on.

    Args:
        values: none negative; those below `floor` are put there.
        floor: a power of ten.
        start, end: pixels.
    """
    first = round(math.log10(floor))
    last = max((math.ceil(math.log10(v)) for v in values if v > floor), default=first)
    last = max(last, first + 1)
    ticks = tuple((10.0**e, f"10{_raised(e)}") for e in range(first, last + 1))
    return Axis(
        low=ticks[0][0], high=ticks[-1][0], start=start, end=end, ticks=ticks, logarithmic=True
    )


def share_axis(values: Sequence[float], *, start: float, end: float) -> Axis:
    """Linear up to 1, from a round number below the lowest share.

    Args:
        values: at least one, from 0 to 1.
        start, end: pixels.
    """
    lowest = min(*values, 1 - _LEAST_SPAN)
    step = next((s for s in _LINEAR_STEPS if 1 - lowest <= _MAX_STEPS * s), _LINEAR_STEPS[-1])
    count = max(1, math.ceil((1 - lowest) / step - 1e-9))
    places = [1 - step * n for n in range(count, -1, -1)]
    ticks = tuple((place, f"{100 * place:.4g} %") for place in places)
    return Axis(low=places[0], high=1.0, start=start, end=end, ticks=ticks, logarithmic=False)


def _raised(exponent: int) -> str:
    return str(exponent).translate(_SUPERSCRIPTS)


def _size(size_bytes: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:g} {unit}"
    return f"{size_bytes:g} B"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.999 * factor:
            return f"{seconds / factor:g} {unit}"
    return f"{seconds * 1e9:g} ns"
