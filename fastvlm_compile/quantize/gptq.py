"""Rounding that makes up for its own errors, given the second moments of a layer's inputs.

What counts is the layer's output: tr((W - Q) H (W - Q)^T) with H = mean of x x^T. Three steps:

1. Scales: `affine.search` on the weights, inputs weighted by the diagonal of H ("static groups").
2. GPTQ (Frantar et al., arXiv 2210.17323): columns are rounded from the strongest input to the
   weakest, and each error is passed on to the columns that are still to be rounded. The feedback
   is that of LDLQ (Chee et al., arXiv 2307.13304, theorem 6: the same numbers): H = U D U^T with
   unit upper triangular U, which takes one Cholesky factorisation and no inverse of H.
3. Coordinate descent on codes and scales for a few rounds (`gptq_descent.py`).

A row starts step 3 from GPTQ or from step 1's own codes, whichever is better, so that the result is
never worse than `search` in what counts (with the damping in H). Where fewer inputs were seen than
half of what a row has, H is kept as these inputs (`gptq_rows.py`). Products and factors are those
of `products.py`, so the number of threads changes no byte.
"""

import numpy as np

from fastvlm_compile.quantize.affine import search
from fastvlm_compile.quantize.affine_kernels import Form
from fastvlm_compile.quantize.affine_rows import as_rows, assemble, form_of, over_rows
from fastvlm_compile.quantize.curvature import Curvature, Feedback, Indices, Slope
from fastvlm_compile.quantize.gptq_descent import COLUMNS, State, descend
from fastvlm_compile.quantize.gptq_factors import (
    MAX_DAMPING,
    Hessian,
    HessianError,
    Moments,
    check,
)
from fastvlm_compile.quantize.gptq_kernels import Grids, round_with_feedback
from fastvlm_compile.quantize.gptq_rows import InputRows, RowMoments, check_rows
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.tensor import Codes, Floats, QuantizedTensor

__all__ = ["HessianError", "gptq"]

_ROWS_AT_ONCE = 8192
"""Rows do not depend on each other; a head of 150,000 takes ten times its codes if all at once."""


def gptq(
    weight: Floats,
    scheme: Affine,
    moments: Hessian | InputRows,
    *,
    percent_damp: float = 0.01,
    act_order: bool = True,
    rounds: int = 3,
) -> QuantizedTensor:
    """Quantize one layer's weight for the inputs it will see.

    Args:
        weight: [O, I] or a convolution's [O, I, height, width].
        scheme: any.
        moments: H [F, F], the mean of x x^T over inputs x in the order of a row: [I], or a patch
            [I, height, width] flattened; or the inputs themselves. Inputs that are always 0 count
            like the average one.
        percent_damp: added to the diagonal, in units of its mean; ten times more as long as the
            result cannot be factorised, up to 1.
        act_order: round the columns of the strongest inputs first.
        rounds: of coordinate descent; a fourth would take another 0.3 % off the error.

    Raises:
        SchemeError: see `affine.round_to_nearest`.
        HessianError: it is not finite, not symmetric, or no damping makes it definite.
    """
    assert 0 <= percent_damp <= MAX_DAMPING, f"damping {percent_damp}"
    rows = as_rows(weight, scheme)
    size = rows.shape[1]
    given: Moments | RowMoments
    given = check_rows(moments, size) if isinstance(moments, InputRows) else check(moments, size)
    importance = given.diagonal.reshape(weight.shape[1], -1).mean(axis=1).astype(np.float32)
    order = np.arange(size)
    if act_order:
        order = np.argsort(-given.diagonal, kind="stable")
    curvature = given.curvature(order, percent_damp)
    num_blocks = scheme.num_blocks(weight.shape)
    codes: Codes = np.empty(rows.shape, dtype=np.uint8)
    scales: Floats = np.empty((len(rows), num_blocks), dtype=np.float32)
    zeros: Codes = np.empty((len(rows), num_blocks), dtype=np.uint8)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        start = search(weight[part], scheme, importance)
        state = _start_of(rows[part], start, form_of(scheme, weight.shape))
        slope = _take_better(rows[part], state, curvature, order)
        for _ in range(rounds):
            descend(state, curvature, slope)
        codes[part], scales[part], zeros[part] = state.codes, state.scales, state.zeros
    return assemble(scheme, weight.shape, codes, scales, zeros)


def _start_of(rows: Floats, start: QuantizedTensor, form: Form) -> State:
    return State(
        codes=start.codes.reshape(rows.shape).copy(),
        errors=rows - start.dequantize().reshape(rows.shape),
        scales=start.scales.astype(np.float32),
        zeros=start.effective_zero_points(),
        form=form,
    )


def _take_better(rows: Floats, state: State, curvature: Curvature, order: Indices) -> Slope:
    """Give each row GPTQ's codes if they err less than its own; returns the slope of the errors."""
    slope, feedback = curvature.slope(state.errors), curvature.feedback()
    codes, errors = _rounded_with_feedback(rows, state, feedback, order)
    rounded = feedback.slope(errors)
    better = rounded.row_errors() < slope.row_errors()
    np.copyto(state.codes, codes, where=better[:, None])
    np.copyto(state.errors, errors, where=better[:, None])
    slope.take(better, rounded)
    return slope


def _rounded_with_feedback(
    rows: Floats, state: State, feedback: Feedback, order: Indices
) -> tuple[Codes, Floats]:
    """Codes and errors [O, F] of GPTQ with the state's scales, columns rounded in `order`."""
    weight = np.take(rows, order, axis=1)
    codes, errors = np.empty(weight.shape, dtype=np.uint8), np.empty_like(weight)
    for start in range(0, len(order), COLUMNS):
        columns = slice(start, min(start + COLUMNS, len(order)))
        target = weight[:, columns] + feedback.pull(errors, columns)
        inside = np.ascontiguousarray(feedback.inside(columns).T)
        blocks = order[columns] // state.form.block
        out = codes[:, columns], errors[:, columns]
        _round_columns(state, blocks, (weight[:, columns], target, inside), out)
    back = np.argsort(order)
    return np.take(codes, back, axis=1), np.take(errors, back, axis=1)


def _round_columns(
    state: State,
    blocks: Indices,
    given: tuple[Floats, Floats, Floats],
    out: tuple[Codes, Floats],
) -> None:
    """`round_with_feedback` over all rows, given its weight, target and feedback."""
    weight, target, feedback = given
    codes, errors = out

    def run(rows: slice) -> None:
        grids = Grids(state.scales[rows], state.zeros[rows], blocks, state.form.top)
        round_with_feedback(
            weight[rows], target[rows], feedback, grids, (codes[rows], errors[rows])
        )

    over_rows(run, target.shape)
