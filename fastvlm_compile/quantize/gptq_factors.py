"""The second moments that GPTQ rounds by, checked, and their factor, in as little room as can be.

The largest are [18944, 18944] in the 7B: 1.4 GB in float32, twice that in float64, which the factor
needs. So there is one matrix in float64 at a time; what goes into it is read by rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.gptq_kernels import Indices
from fastvlm_compile.quantize.products import cholesky
from fastvlm_compile.quantize.tensor import Floats
from reference.errors import UserError

Doubles = npt.NDArray[np.float64]
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


def factorise(moments: Moments, order: Indices, percent_damp: float) -> tuple[Floats, Floats]:
    """The damped H, and U - 1 of H = U D U^T in the given order of columns, both float32 [F, F].

    Args:
        moments: H.
        order: of the columns.
        percent_damp: see `gptq`.

    Raises:
        HessianError: no damping makes it definite.
    """
    damping = percent_damp
    while damping <= MAX_DAMPING:
        try:
            feedback = _feedback(moments, order, damping)
        except np.linalg.LinAlgError:
            damping = max(10 * damping, 1e-4)
            continue
        damped: Floats = np.empty(feedback.shape, dtype=np.float32)
        for ids in _blocks(np.arange(len(order))):
            damped[ids] = _damped(moments, ids, damping)
        return damped, feedback
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
