"""Which integers stand for an activation: a histogram of what it was, a search over what to clip.

Scales come from a coarse grid, an eighth of an octave apart, and not from the extremes themselves:
the last bits of a sum differ between machines, and so they do not reach the file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Response = Callable[[Doubles], Doubles]
"""What follows the activation, value by value; errors are counted behind it."""

MAX_LEVEL = 255
"""The largest uint8."""

HALF_BINS = 8192
"""Bins on either side of zero: some 16 to a step of the quantizer, even if half of it is empty."""

MANTISSAS = np.array([256, 279, 304, 332, 362, 395, 431, 470]) / 256
"""256 times two to the power of 0/8 .. 7/8, rounded, so that a scale is the same number on all
machines."""

OCTAVES_CLIPPED = 2
"""How far below the full range scales are tried: a quarter."""

ZERO_POINTS_TRIED = 9
"""Ways to share what is clipped between the two ends."""


class ActivationError(ValueError):
    """What was observed cannot be quantized: it is not finite, or nothing was observed."""


@dataclass(frozen=True, kw_only=True)
class ActivationRange:
    """value = (code - zero_point) * scale, codes 0..255."""

    scale: np.float32
    zero_point: np.uint8


class Histogram:
    """Counts of values in bins of one width, a power of two that grows as larger values come."""

    def __init__(self) -> None:
        self.counts = np.zeros(2 * HALF_BINS, dtype=np.int64)
        self.exponent = -40
        """The bins reach to +-2^exponent."""
        self.low = np.inf
        self.high = -np.inf

    def add(self, values: Floats, low: float, high: float) -> None:
        """Count values; `low` and `high` are the extremes of the tensor they were taken from.

        Raises:
            ActivationError: the extremes are not finite.
        """
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ActivationError("an activation is NaN or infinite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-low, high) >= 2.0**self.exponent:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[HALF_BINS // 2 : HALF_BINS // 2 + HALF_BINS] = pairs
            self.exponent += 1
        # Dividing by a power of two is exact, so a value falls into the same bin everywhere.
        bins = np.floor(values.reshape(-1) / np.float32(self.width)).astype(np.int64)
        self.counts += np.bincount(bins + HALF_BINS, minlength=2 * HALF_BINS)

    @property
    def width(self) -> float:
        """Of a bin."""
        return float(2.0**self.exponent / HALF_BINS)

    def occupied(self) -> tuple[Doubles, Doubles]:
        """Centres of the bins that hold something, and their counts."""
        (filled,) = np.nonzero(self.counts)
        centres = (filled.astype(np.float64) - (HALF_BINS - 0.5)) * self.width
        return centres, self.counts[filled].astype(np.float64)


def choose_range(
    histogram: Histogram, max_level: int, response: Response | None = None
) -> ActivationRange:
    """The scale and zero point, codes 0..`max_level`, that err least on what was observed.

    Errors are counted to the third power. The square clips large values too readily: they are few,
    and carry answers (trained tiny model, codes to 255, worst of 100 images: 41.8 dB with squares,
    44.5 dB with the third power).

    Args:
        histogram: of the activation; 0 is always in the range.
        max_level: largest code to be used, at most 255.
        response: what follows; None for nothing.

    Raises:
        ActivationError: nothing was observed.
    """
    centres, counts = histogram.occupied()
    if not counts.size:
        raise ActivationError("nothing was observed")
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if low == high:
        return ActivationRange(scale=np.float32(1), zero_point=np.uint8(0))
    wanted = centres if response is None else response(centres)
    best = (np.inf, 1.0, 0)
    for scale in _scales((high - low) / max_level):
        for zero_point in _zero_points(low, high, scale, max_level):
            codes = np.clip(np.rint(centres / scale) + zero_point, 0, max_level)
            found = (codes - zero_point) * scale
            found = found if response is None else response(found)
            error = float((counts * np.abs(found - wanted) ** 3).sum())
            if error < best[0]:
                best = (error, scale, zero_point)
    return ActivationRange(scale=np.float32(best[1]), zero_point=np.uint8(best[2]))


def _scales(full: float) -> list[float]:
    """Of the grid, descending, from the first at which nothing is clipped."""
    octave = int(np.floor(np.log2(full))) + 1
    grid = [
        float(np.ldexp(mantissa, octave - down))
        for down in range(OCTAVES_CLIPPED + 3)
        for mantissa in MANTISSAS[::-1]
    ]
    first = max(index for index, scale in enumerate(grid) if scale >= full)
    return grid[first : first + OCTAVES_CLIPPED * len(MANTISSAS) + 1]


def _zero_points(low: float, high: float, scale: float, max_level: int) -> list[int]:
    """From the one that keeps the low end whole to the one that keeps the high end whole."""
    keeps_low = min(max_level, int(np.ceil(-low / scale)))
    keeps_high = max(0, max_level - int(np.ceil(high / scale)))
    if keeps_low <= keeps_high:
        return [keeps_low]  # both are whole
    tried = np.linspace(keeps_high, keeps_low, ZERO_POINTS_TRIED)
    return sorted({round(float(value)) for value in tried})
