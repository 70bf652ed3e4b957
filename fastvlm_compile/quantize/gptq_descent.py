"""Coordinate descent on a layer's output error: codes, then scales, each best given all others.

What falls is e H e^T of each row's errors e = weight - dequantized. Source: QuantEase (Behdin et
al., arXiv 2309.01885) for the codes; the scales are the same step along another line.

Shape letters: O output channels, F inputs, B blocks of a row, C columns looked at together.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.affine_kernels import Form
from fastvlm_compile.quantize.affine_rows import over_rows
from fastvlm_compile.quantize.gptq_kernels import Grids, descend_codes
from fastvlm_compile.quantize.products import product
from fastvlm_compile.quantize.tensor import Codes, Floats

Doubles = npt.NDArray[np.float64]

COLUMNS = 128
"""Columns that hear of each other's changes at once, before a product tells the rest of the row."""


@dataclass(kw_only=True)
class State:
    """Rows being quantized; the arrays change.

    Attributes:
        codes: [O, F].
        errors: [O, F], weight - dequantized.
        scales: [O, B], float16 values in float32.
        zeros: [O, B].
        form: of every block.
    """

    codes: Codes
    errors: Floats
    scales: Floats
    zeros: Codes
    form: Form


def row_errors(errors: Floats, hessian: Floats) -> Doubles:
    """e H e^T of each row e of [O, F], float64 [O]."""
    moved: Floats = product(errors, hessian)
    return _row_products(moved, errors)


def _row_products(left: Floats, right: Floats) -> Doubles:
    """The inner products of the rows of two arrays, summed in float64."""
    result: Doubles = np.sum(left * right, axis=1, dtype=np.float64)
    return result


def descend(state: State, hessian: Floats) -> None:
    """One round over all codes and scales of `state`, for a positive definite H [F, F]."""
    for group in _groups(state):
        pieces = [
            slice(start, min(start + COLUMNS, group.stop))
            for start in range(group.start, group.stop, COLUMNS)
        ]
        for columns in pieces:
            gradient = product(state.errors, hessian[:, columns])
            _descend_codes(state, columns, gradient, hessian)
        if len(pieces) > 1:
            gradient = product(state.errors, hessian[:, group])
        _descend_scales(state, group, gradient, hessian)


def _groups(state: State) -> Iterator[slice]:
    """Columns in runs of whole blocks, each of `COLUMNS` columns or of one longer block."""
    width = max(1, COLUMNS // state.form.block) * state.form.block
    num_columns = state.codes.shape[1]
    for start in range(0, num_columns, width):
        yield slice(start, min(start + width, num_columns))


def _descend_codes(state: State, columns: slice, gradient: Floats, hessian: Floats) -> None:
    inside = np.ascontiguousarray(hessian[columns, columns])
    blocks = np.arange(columns.start, columns.stop, dtype=np.int64) // state.form.block

    def run(rows: slice) -> None:
        grids = Grids(state.scales[rows], state.zeros[rows], blocks, state.form.top)
        errors, codes = state.errors[rows, columns], state.codes[rows, columns]
        descend_codes(errors, gradient[rows], inside, grids, codes)

    over_rows(run, gradient.shape)


def _descend_scales(state: State, group: slice, gradient: Floats, hessian: Floats) -> None:
    """Refit the scales of a group's blocks in turn; `gradient` [O, C] is current and changed."""
    for start in range(group.start, group.stop, state.form.block):
        columns = slice(start, min(start + state.form.block, group.stop))
        inside = slice(columns.start - group.start, columns.stop - group.start)
        index = start // state.form.block
        zeros = state.zeros[:, index, None].astype(np.float32)
        steps: Floats = state.codes[:, columns].astype(np.float32) - zeros
        effect: Floats = product(steps, hessian[columns, group])
        slope = _row_products(steps, gradient[:, inside])
        curvature = _row_products(steps, effect[:, inside])
        change = _scale_change(state.scales[:, index], slope, curvature)
        state.scales[:, index] += change
        state.errors[:, columns] -= change[:, None] * steps
        gradient -= change[:, None] * effect


def _scale_change(scales: Floats, slope: Doubles, curvature: Doubles) -> Floats:
    """What to add to each scale [O] to make it the best float16; 0 where that is not possible."""
    with np.errstate(all="ignore"):  # what is not usable is left out below
        wanted = (scales + slope / curvature).astype(np.float16).astype(np.float32)
        # 0 would lose the block, and the other sign may not be allowed.
        usable = np.isfinite(wanted) & (wanted * scales > 0)
        return np.where(usable, wanted - scales, np.float32(0))
