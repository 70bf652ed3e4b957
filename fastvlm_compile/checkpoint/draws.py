"""Random draws with the shapes of trained weights, in float32 and in blocks of bounded size.

Trained weights are heavy-tailed, their scale differs from channel to channel (log-normally), and a
few channels stand far out. Quantization lives and dies by these three.

Sums and exponentials are taken in float64 and rounded: in float32 their last bit depends on the
processor's vector width, and a seed shall mean the same checkpoint everywhere.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_MAX_BLOCK_ELEMENTS = 4_000_000

_CUBIC = 0.12
_CUBIC_STD = (1 + 6 * _CUBIC + 15 * _CUBIC**2) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a tensor's randomness comes from: a seed and a name, and nothing else.

    Two layouts of one checkpoint, or two ways to split it, therefore draw the same values.
    """

    seed: int
    name: str

    def generator(self, purpose: str) -> np.random.Generator:
        """A generator of its own for each purpose, so that one draw does not shift another."""
        text = f"{self.seed}/{self.name}/{purpose}"
        digest = hashlib.sha256(text.encode()).digest()
        return np.random.Generator(np.random.SFC64(int.from_bytes(digest[:16], "little")))


def heavy_tailed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Mean 0, variance 1, kurtosis 7.5, as Student's t of 5.3 degrees of freedom.

    A normal draw z bent to z + 0.12 z**3 (Fleishman's power method), ten times as fast as t itself.
    """
    values = generator.standard_normal(shape, dtype=np.float32)
    bend = values * values
    bend *= np.float32(_CUBIC / _CUBIC_STD)
    bend += np.float32(1 / _CUBIC_STD)
    values *= bend
    return values


def log_normal(
    generator: np.random.Generator, shape: tuple[int, ...], *, median: float = 1.0, sigma: float
) -> Floats:
    """Scales: `median` times e to a normal draw of deviation `sigma`."""
    draw = generator.standard_normal(shape, dtype=np.float32).astype(np.float64)
    scales: Floats = (median * np.exp(sigma * draw)).astype(np.float32)
    return scales


def channel_scales(generator: np.random.Generator, count: int, *, sigma: float) -> Floats:
    """Log-normal scales whose mean square is 1, so that they leave a variance as it is."""
    scales = log_normal(generator, (count,), sigma=sigma)
    mean_square = np.mean(np.square(scales, dtype=np.float64))
    return scales / np.float32(np.sqrt(mean_square))


def matrix_blocks(
    source: Source,
    shape: tuple[int, int],
    *,
    std: float,
    row_sigma: float,
    column_sigma: float = 0.15,
    row_factors: Floats | None = None,
    column_factors: Floats | None = None,
    centred: bool = False,
) -> Iterator[Floats]:
    """Rows of a heavy-tailed matrix [outputs, inputs], a block of them at a time.

    Args:
        source: its randomness. The blocks' size does not change the values.
        shape: outputs and inputs.
        std: root mean square of the whole, before the factors.
        row_sigma: spread of the outputs' scales (log-normal).
        column_sigma: spread of the inputs' scales.
        row_factors: [outputs], multiplied on, for outlier channels.
        column_factors: [inputs], likewise.
        centred: each row sums to zero, so that the mean which GELU gives all inputs is not passed
            on; without it the features of any two images grow alike within a dozen layers.
    """
    rows, columns = shape
    values = source.generator("values")
    scales = source.generator("rows")
    column_scales = channel_scales(source.generator("columns"), columns, sigma=column_sigma)
    if column_factors is not None:
        column_scales = column_scales * column_factors
    # The mean square of a log-normal scale is exp(2 sigma^2).
    base = np.float32(std * np.exp(-(row_sigma**2)))
    step = max(1, _MAX_BLOCK_ELEMENTS // columns)
    for start in range(0, rows, step):
        count = min(step, rows - start)
        block = heavy_tailed(values, (count, columns))
        block *= column_scales
        if centred:
            block -= block.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        row_scales = base * log_normal(scales, (count, 1), sigma=row_sigma)
        if row_factors is not None:
            row_scales = row_scales * row_factors[start : start + count, None]
        block *= row_scales
        yield block
