"""The second moments that GPTQ rounds by, as a matrix: checked, and factored in little room.

There is one matrix in float64 at a time, which the factor needs; what goes into it is read by rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.curvature import Doubles, Flags, Indices, Slope, row_products
from fastvlm_compile.quantize.products import cholesky, product
from fastvlm_compile.quantize.tensor import Floats
from reference.errors import UserError

Hessian = npt.NDArray[np.float32] | Doubles

MAX_DAMPING = 1.0

_VALUES_AT_ONCE = 2**23


class HessianError(UserError):
    """The second moments of a layer's inputs cannot be used."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Checked second moments H [F, F].

    Attributes:
        given: as they came.
        mean: of the diagonal above 0.
        diagonal: of H [F], in units of the mean; 1 for inputs that are always 0.
    """

    given: Hessian
    mean: float
    diagonal: Doubles

    def rows(self, ids: Indices) -> Doubles:
        """Rows [n, F] of H, symmetric and in units of the mean."""
        rows = _symmetric(self.given, ids) / self.mean
        rows[np.arange(len(ids)), ids] = self.diagonal[ids]
        return rows

    def curvature(self, order: Indices, percent_damp: float) -> "MatrixCurvature":
        """H damped, and its factor in the given order of columns.

        Raises:
            HessianError: no damping makes it definite.
        """
        factor, damping = with_damping(
            lambda damping: _feedback(self, order, damping), percent_damp
        )
        damped: Floats = np.empty(factor.shape, dtype=np.float32)
        for ids in _blocks(np.arange(len(order))):
            damped[ids] = _damped(self, ids, damping)
        return MatrixCurvature(matrix=damped, factor=factor)


def check(hessian: Hessian, size: int) -> Moments:
    """Second moments fit to be used.

    Raises:
        HessianError: they are not finite, negative on the diagonal or not symmetric.
    """
    assert hessian.shape == (size, size), f"second moments {hessian.shape} of {size} inputs"
    diagonal = np.diag(hessian).astype(np.float64)
    alive = diagonal > 0
    finite, skew = True, 0.0
    with np.errstate(invalid="ignore"):  # infinity - infinity: refused below
        mean = float(diagonal[alive].mean()) if alive.any() else 1.0
        for ids in _blocks(np.arange(size)):
            rows = _symmetric(hessian, ids)
            finite = finite and bool(np.isfinite(rows).all())
            skew = max(skew, float(np.abs(rows - hessian[ids]).max()))
    if not (finite and (diagonal >= 0).all() and skew <= 1e-3 * mean):
        raise HessianError(
            "the second moments of a layer's inputs are not finite, negative or not symmetric",
            hint="they are a mean of x x^T; collect them in float32, and look for NaN in the model",
        )
    return Moments(given=hessian, mean=mean, diagonal=np.where(alive, diagonal / mean, 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixCurvature:
    """A `Curvature` of a matrix and its factor.

    Attributes:
        matrix: the damped H, float32 [F, F].
        factor: U of H = U D U^T in the order of rounding, float32 [F, F].
    """

    matrix: Floats
    factor: Floats

    def part(self, rows: slice, columns: slice) -> Floats:
        """H[rows, columns], a view."""
        return self.matrix[rows, columns]

    def times(self, values: Floats, rows: slice, columns: slice) -> Floats:
        """[O, C]: values [O, R] times H[rows, columns]."""
        return product(values, self.matrix[rows, columns])

    def feedback(self) -> "_MatrixFeedback":
        """For any rows."""
        return _MatrixFeedback(self)

    def slope(self, errors: Floats) -> "_MatrixSlope":
        """Of errors [O, F]."""
        return _MatrixSlope(errors, self.matrix)


class _MatrixFeedback:
    def __init__(self, curvature: MatrixCurvature) -> None:
        self._curvature = curvature

    def pull(self, errors: Floats, columns: slice) -> Floats:
        before = slice(0, columns.start)
        return product(errors[:, before], self._curvature.factor[before, columns])

    def inside(self, columns: slice) -> Floats:
        return self._curvature.factor[columns, columns]

    def slope(self, errors: Floats) -> "_MatrixSlope":
        return self._curvature.slope(errors)


class _MatrixSlope:
    def __init__(self, errors: Floats, matrix: Floats) -> None:
        self._errors = errors
        self._matrix = matrix

    def row_errors(self) -> Doubles:
        return row_products(product(self._errors, self._matrix), self._errors)

    def take(self, rows: Flags, other: Slope) -> None:
        del rows, other  # the product is of the errors as they are

    def at(self, columns: slice) -> Floats:
        return product(self._errors, self._matrix[:, columns])

    def changed(self, columns: slice, change: Floats) -> None:
        del columns, change  # the product is of the errors as they are


def with_damping(factorise: Callable[[float], Floats], percent_damp: float) -> tuple[Floats, float]:
    """What `factorise` makes of the least damping that it can do with, and that damping.

    Raises:
        HessianError: none is enough.
    """
    damping = percent_damp
    while damping <= MAX_DAMPING:
        try:
            return factorise(damping), damping
        except np.linalg.LinAlgError:
            damping = max(10 * damping, 1e-4)
    raise HessianError(
        f"the second moments of a layer's inputs have no Cholesky factor even with {MAX_DAMPING} "
        "of their mean added to the diagonal",
        hint="they must be a mean of x x^T, which has no negative eigenvalues",
    )


def _feedback(moments: Moments, order: Indices, damping: float) -> Floats:
    backwards = order[::-1]
    lower: Doubles = np.empty((len(order), len(order)))
    for places in _blocks(np.arange(len(order))):
        lower[places] = _damped(moments, backwards[places], damping)[:, backwards]
    upper = cholesky(lower)[::-1, ::-1]
    upper /= np.diag(upper).copy()
    return np.ascontiguousarray(upper, dtype=np.float32)


def _damped(moments: Moments, ids: Indices, damping: float) -> Doubles:
    rows = moments.rows(ids)
    rows[np.arange(len(ids)), ids] += damping
    return rows


def _symmetric(hessian: Hessian, ids: Indices) -> Doubles:
    """Rows of (H + H^T) / 2."""
    rows: Doubles = (hessian[ids].astype(np.float64) + hessian[:, ids].T) / 2
    return rows


def _blocks(ids: Indices) -> Iterator[Indices]:
    step = max(1, _VALUES_AT_ONCE // len(ids))
    for start in range(0, len(ids), step):
        yield ids[start : start + step]
