"""Coordinate descent on a layer's output error: codes, then scales, each best given all others.

What falls is e H e^T of each row's errors e = weight - dequantized. Source: QuantEase (Behdin et
al., arXiv 2309.01885) for the codes; the scales are the same step along another line.

Shape letters: O output channels, F inputs, B blocks of a row, C columns looked at together.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastvlm_compile.quantize.affine_kernels import Form
from fastvlm_compile.quantize.affine_rows import over_rows
from fastvlm_compile.quantize.curvature import Curvature, Doubles, Slope, row_products
from fastvlm_compile.quantize.gptq_kernels import Grids, descend_codes
from fastvlm_compile.quantize.tensor import Codes, Floats

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


def descend(state: State, curvature: Curvature, slope: Slope) -> None:
    """One round over all codes and scales of `state`.

    Args:
        state: changed.
        curvature: H.
        slope: of the state's errors; told of their changes.
    """
    for group in _groups(state):
        pieces = [
            slice(start, min(start + COLUMNS, group.stop))
            for start in range(group.start, group.stop, COLUMNS)
        ]
        before = state.errors[:, group].copy()
        for columns in pieces:
            gradient = slope.at(columns)
            _descend_codes(state, columns, gradient, curvature.part(columns, columns))
            if len(pieces) > 1:
                own = slice(columns.start - group.start, columns.stop - group.start)
                slope.changed(columns, state.errors[:, columns] - before[:, own])
                before[:, own] = state.errors[:, columns]
        if len(pieces) > 1:
            gradient = slope.at(group)
        _descend_scales(state, group, gradient, curvature)
        slope.changed(group, state.errors[:, group] - before)


def _groups(state: State) -> Iterator[slice]:
    """Columns in runs of whole blocks, each of `COLUMNS` columns or of one longer block."""
    width = max(1, COLUMNS // state.form.block) * state.form.block
    num_columns = state.codes.shape[1]
    for start in range(0, num_columns, width):
        yield slice(start, min(start + width, num_columns))


def _descend_codes(state: State, columns: slice, gradient: Floats, inside: Floats) -> None:
    inside = np.ascontiguousarray(inside)
    blocks = np.arange(columns.start, columns.stop, dtype=np.int64) // state.form.block

    def run(rows: slice) -> None:
        grids = Grids(state.scales[rows], state.zeros[rows], blocks, state.form.top)
        errors, codes = state.errors[rows, columns], state.codes[rows, columns]
        descend_codes(errors, gradient[rows], inside, grids, codes)

    over_rows(run, gradient.shape)


def _descend_scales(state: State, group: slice, gradient: Floats, curvature: Curvature) -> None:
    """Refit the scales of a group's blocks in turn; `gradient` [O, C] is current and changed."""
    for start in range(group.start, group.stop, state.form.block):
        columns = slice(start, min(start + state.form.block, group.stop))
        own = slice(columns.start - group.start, columns.stop - group.start)
        index = start // state.form.block
        zeros = state.zeros[:, index, None].astype(np.float32)
        steps: Floats = state.codes[:, columns].astype(np.float32) - zeros
        effect = curvature.times(steps, columns, group)
        slope, bend = row_products(steps, gradient[:, own]), row_products(steps, effect[:, own])
        change = _scale_change(state.scales[:, index], slope, bend)
        state.scales[:, index] += change
        state.errors[:, columns] -= change[:, None] * steps
        gradient -= change[:, None] * effect


def _scale_change(scales: Floats, slope: Doubles, bend: Doubles) -> Floats:
    """What to add to each scale [O] to make it the best float16; 0 where that is not possible."""
    with np.errstate(all="ignore"):  # what is not usable is left out below
        wanted = (scales + slope / bend).astype(np.float16).astype(np.float32)
        # 0 would lose the block, and the other sign may not be allowed.
        usable = np.isfinite(wanted) & (wanted * scales > 0)
        return np.where(usable, wanted - scales, np.float32(0))
