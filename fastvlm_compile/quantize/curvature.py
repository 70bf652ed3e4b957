"""How errors of a weight's rows add up to an error of the output: H, in what `gptq` asks of it.

There are two ways to hold H = mean of x x^T: the matrix (`gptq_factors.py`), or the inputs x where
they are few (`gptq_rows.py`), which then takes less memory and fewer products. Both are damped, and
in units of the mean of H's diagonal.

Shape letters: O output channels, F inputs, C columns looked at together.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.tensor import Floats

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Feedback(Protocol):
    """What rounding errors of some rows move later columns by, in the order of rounding.

    H = U D U^T with unit upper triangular U. Columns are taken chunk by chunk from the first.
    """

    def pull(self, errors: Floats, columns: slice) -> Floats:
        """[O, C]: errors [O, F] of all columns before these, times U."""
        ...

    def inside(self, columns: slice) -> Floats:
        """[C, C]: U among these columns; its diagonal is of no use."""
        ...

    def slope(self, errors: Floats) -> "Slope":
        """Of the errors [O, F], when all columns are rounded: in the order of H's rows."""
        ...


class Slope(Protocol):
    """E H for errors E [O, F] that change."""

    def row_errors(self) -> Doubles:
        """e H e^T of each row e: [O]."""
        ...

    def take(self, rows: Flags, other: "Slope") -> None:
        """Some rows of E became those of another of the same H."""
        ...

    def at(self, columns: slice) -> Floats:
        """[O, C]."""
        ...

    def changed(self, columns: slice, change: Floats) -> None:
        """Columns of E grew by `change` [O, C]."""
        ...


class Curvature(Protocol):
    """A damped H [F, F]."""

    def part(self, rows: slice, columns: slice) -> Floats:
        """H[rows, columns]."""
        ...

    def times(self, values: Floats, rows: slice, columns: slice) -> Floats:
        """[O, C]: values [O, R] times H[rows, columns]."""
        ...

    def feedback(self) -> Feedback:
        """For rows that begin to be rounded."""
        ...

    def slope(self, errors: Floats) -> Slope:
        """Of errors [O, F] that the caller changes and tells of."""
        ...


def row_products(left: Floats, right: Floats) -> Doubles:
    """The inner products of the rows of two arrays, summed in float64."""
    result: Doubles = np.sum(left * right, axis=1, dtype=np.float64)
    return result
