"""Compiled loops of `gptq`: rounding with feedback, and descent over codes.

Rows are independent of each other; a call takes a chunk of columns of some rows. Errors are weight
- dequantized. All numbers are float32 unless said otherwise.

Shape letters: R rows, C columns of the chunk, B blocks of a row.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.affine_kernels import Single, compiled, nearest_code
from fastvlm_compile.quantize.tensor import Codes, Floats

Indices = npt.NDArray[np.int64]


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


@compiled
def round_with_feedback(
    weight: Floats, target: Floats, feedback: Floats, grids: Grids, out: tuple[Codes, Floats]
) -> None:
    """Round columns in turn; each error moves what the later ones aim at.

    Args:
        weight: [R, C].
        target: [R, C], the weight moved by the errors of earlier chunks; changed.
        feedback: [C, C], above the diagonal: what column j is moved by per error of column i.
        grids: of the chunk.
        out: where to write codes and errors, each [R, C].
    """
    codes, errors = out
    num_rows, num_columns = weight.shape
    for row in range(num_rows):
        for i in range(num_columns):
            scale = grids.scales[row, grids.blocks[i]]
            zero = Single(grids.zeros[row, grids.blocks[i]])
            code = nearest_code(target[row, i], Single(1) / scale, zero, grids.top)
            error = weight[row, i] - (code - zero) * scale
            codes[row, i], errors[row, i] = np.uint8(code), error
            for j in range(i + 1, num_columns):
                target[row, j] += error * feedback[i, j]


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
    for row in range(num_rows):
        for i in range(num_columns):
            scale = grids.scales[row, grids.blocks[i]]
            zero = Single(grids.zeros[row, grids.blocks[i]])
            step = Single(codes[row, i]) - zero
            aim = step * scale + gradient[row, i] / hessian[i, i]
            code = nearest_code(aim, Single(1) / scale, zero, grids.top)
            change = (code - zero - step) * scale
            if change != 0:
                codes[row, i] = np.uint8(code)
                errors[row, i] -= change
                for j in range(num_columns):
                    gradient[row, j] -= change * hessian[i, j]
