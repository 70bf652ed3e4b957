"""Rounding that makes up for its own errors, given the second moments of a layer's inputs.

What counts is the layer's output: tr((W - Q) H (W - Q)^T) with H = mean of x x^T. Three steps:

1. Scales: `affine.search` on the weights, inputs weighted by the diagonal of H ("static groups").
2. GPTQ (Frantar et al., arXiv 2210.17323): columns are rounded from the strongest input to the
   weakest, and each error is passed on to the columns that are still to be rounded. The feedback
   is that of LDLQ (Chee et al., arXiv 2307.13304, theorem 6: the same numbers): H = U D U^T with
   unit upper triangular U, which takes one Cholesky factorisation and no inverse of H.
3. Coordinate descent on codes and scales for a few rounds (`gptq_descent.py`).

A row starts step 3 from GPTQ or from step 1's own codes, whichever is better, so that the result is
never worse than `search` in what counts (with the damping in H). Products and factors are those
of `products.py`, so the number of threads changes no byte.
"""

import numpy as np

from fastvlm_compile.quantize.affine import search
from fastvlm_compile.quantize.affine_kernels import Form
from fastvlm_compile.quantize.affine_rows import as_rows, assemble, form_of, over_rows
from fastvlm_compile.quantize.gptq_descent import COLUMNS, State, descend, row_errors
from fastvlm_compile.quantize.gptq_factors import (
    MAX_DAMPING,
    Hessian,
    HessianError,
    check,
    factorise,
)
from fastvlm_compile.quantize.gptq_kernels import Grids, Indices, round_with_feedback
from fastvlm_compile.quantize.products import product
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.tensor import Codes, Floats, QuantizedTensor

__all__ = ["HessianError", "gptq"]

_ROWS_AT_ONCE = 8192
"""Rows do not depend on each other; a head of 150,000 takes ten times its codes if all at once."""


def gptq(
    weight: Floats,
    scheme: Affine,
    hessian: Hessian,
    *,
    percent_damp: float = 0.01,
    act_order: bool = True,
    rounds: int = 4,
) -> QuantizedTensor:
    """Quantize one layer's weight for the inputs it will see.

    Args:
        weight: [O, I] or a convolution's [O, I, height, width].
        scheme: any.
        hessian: [F, F], the mean of x x^T over inputs x in the order of a row: [I], or a patch
            [I, height, width] flattened. Inputs that are always 0 count like the average one.
        percent_damp: added to the diagonal, in units of its mean; ten times more as long as the
            result cannot be factorised, up to 1.
        act_order: round the columns of the strongest inputs first.
        rounds: of coordinate descent.

    Raises:
        SchemeError: see `affine.round_to_nearest`.
        HessianError: it is not finite, not symmetric, or no damping makes it definite.
    """
    assert 0 <= percent_damp <= MAX_DAMPING, f"damping {percent_damp}"
    rows = as_rows(weight, scheme)
    moments = check(hessian, rows.shape[1])
    positions = rows.shape[1] // weight.shape[1]
    importance = moments.diagonal.reshape(-1, positions).mean(axis=1).astype(np.float32)
    order = np.arange(len(moments.diagonal))
    if act_order:
        order = np.argsort(-moments.diagonal, kind="stable")
    damped, feedback = factorise(moments, order, percent_damp)
    num_blocks = scheme.num_blocks(weight.shape)
    codes: Codes = np.empty(rows.shape, dtype=np.uint8)
    scales: Floats = np.empty((len(rows), num_blocks), dtype=np.float32)
    zeros: Codes = np.empty((len(rows), num_blocks), dtype=np.uint8)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        start = search(weight[part], scheme, importance)
        state = _start_of(rows[part], start, form_of(scheme, weight.shape))
        rounded = _rounded_with_feedback(rows[part], state, feedback, order)
        _keep_better(state, rounded, damped)
        for _ in range(rounds):
            descend(state, damped)
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


def _rounded_with_feedback(
    rows: Floats, state: State, feedback: Floats, order: Indices
) -> tuple[Codes, Floats]:
    """Codes and errors [O, F] of GPTQ with the state's scales, columns rounded in `order`."""
    weight = np.ascontiguousarray(rows[:, order])
    codes, errors = np.empty(weight.shape, dtype=np.uint8), np.empty_like(weight)
    for start in range(0, len(order), COLUMNS):
        columns = slice(start, start + COLUMNS)
        target = weight[:, columns] + product(errors[:, :start], feedback[:start, columns])
        inside = np.ascontiguousarray(feedback[columns, columns].T)
        blocks = order[columns] // state.form.block
        out = codes[:, columns], errors[:, columns]
        _round_columns(state, blocks, (weight[:, columns], target, inside), out)
    back = np.argsort(order)
    return codes[:, back], errors[:, back]


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


def _keep_better(state: State, other: tuple[Codes, Floats], hessian: Floats) -> None:
    """Take the rows of `other` that err less."""
    codes, errors = other
    better = row_errors(errors, hessian) < row_errors(state.errors, hessian)
    state.codes[better], state.errors[better] = codes[better], errors[better]
