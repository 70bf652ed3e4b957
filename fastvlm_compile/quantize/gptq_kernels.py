"""Compiled loops of `gptq`: rounding with feedback, and descent over codes.

Rows are independent of each other; a call takes a chunk of columns of some rows. Errors are weight
- dequantized. All numbers are float32 unless said otherwise.

Shape letters: R rows, C columns of the chunk, B blocks of a row.
"""

from typing import NamedTuple

import numpy as np

from fastvlm_compile.quantize.affine_kernels import Single, compiled, nearest_code
from fastvlm_compile.quantize.curvature import Indices
from fastvlm_compile.quantize.tensor import Codes, Floats


class Grids(NamedTuple):
    """Where the codes of a chunk may lie.

    Attributes:
        scales: [R, B].
        zeros: zero points [R, B].
        blocks: [C], the block of each column.
        top: the largest code.
    """

    scales: Floats
    zeros: Codes
    blocks: Indices
    top: Single


LANES = 32
"""Rows rounded side by side in the processor's vectors; they know nothing of each other."""


@compiled
def round_with_feedback(
    weight: Floats, target: Floats, feedback: Floats, grids: Grids, out: tuple[Codes, Floats]
) -> None:
    """Round columns in turn; each error moves what the later ones aim at.

    Args:
        weight: [R, C].
        target: [R, C], the weight moved by the errors of earlier chunks.
        feedback: [C, C], row i what column i is moved by per error of each column before it.
        grids: of the chunk.
        out: where to write codes and errors, each [R, C].
    """
    codes, errors = out
    num_rows, num_columns = weight.shape
    tile = np.zeros((num_columns, LANES), dtype=np.float32)  # errors of the rows side by side
    aim = np.zeros(LANES, dtype=np.float32)
    for first in range(0, num_rows, LANES):
        count = min(LANES, num_rows - first)
        for i in range(num_columns):
            for lane in range(count):
                aim[lane] = target[first + lane, i]
            _add_products(tile, feedback[i], i, aim)
            block = grids.blocks[i]
            for lane in range(count):
                row = first + lane
                scale, zero = grids.scales[row, block], Single(grids.zeros[row, block])
                code = nearest_code(aim[lane], Single(1) / scale, zero, grids.top)
                error = weight[row, i] - (code - zero) * scale
                codes[row, i], errors[row, i], tile[i, lane] = np.uint8(code), error, error


@compiled
def _add_products(tile: Floats, factors: Floats, count: int, result: Floats) -> None:
    """Add factors[j] * tile[j] over j < count to the lanes of `result`, in the order of j."""
    j = 0
    while j + 4 <= count:
        a, b, c, d = factors[j], factors[j + 1], factors[j + 2], factors[j + 3]
        for lane in range(LANES):
            near = a * tile[j, lane] + b * tile[j + 1, lane]
            far = c * tile[j + 2, lane] + d * tile[j + 3, lane]
            result[lane] += near + far
        j += 4
    while j < count:
        for lane in range(LANES):
            result[lane] += factors[j] * tile[j, lane]
        j += 1


@compiled
def descend_codes(
    errors: Floats, gradient: Floats, hessian: Floats, grids: Grids, codes: Codes
) -> None:
    """Give each column in turn the code that is best given all others; no step errs more.

    Args:
        errors: [R, C]; changed.
        gradient: [R, C], errors of the whole rows times H; changed.
        hessian: [C, C], H among the chunk's columns.
        grids: of the chunk.
        codes: [R, C]; changed.
    """
    num_rows, num_columns = errors.shape
    lengths = Single(1) / np.diag(hessian)
    for row in range(num_rows):
        block, scale, inverse, zero = -1, Single(0), Single(0), Single(0)
        for i in range(num_columns):
            if grids.blocks[i] != block:
                block = grids.blocks[i]
                scale, zero = grids.scales[row, block], Single(grids.zeros[row, block])
                inverse = Single(1) / scale
            step = Single(codes[row, i]) - zero
            aim = step * scale + gradient[row, i] * lengths[i]
            code = nearest_code(aim, inverse, zero, grids.top)
            if code - zero != step:
                change = (code - zero - step) * scale
                codes[row, i] = np.uint8(code)
                errors[row, i] -= change
                for j in range(num_columns):
                    gradient[row, j] -= change * hessian[i, j]
