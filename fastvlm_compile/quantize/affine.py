"""Block-wise integers: rounding to nearest, and a search for better scales without calibration.

Scales of 4-bit symmetric codes may be negative. The codes reach from -8 to 7, so the larger half
goes to the side of the extreme value, as in llama.cpp's Q4_0; that alone takes 10 % off the squared
error at no cost. MatMulNBits, MLX's `dequantize` and Core ML's `constexpr_blockwise_shift_scale`
define no more than a product, and the quantizers of onnxruntime (symmetric) and of MLX write such
scales themselves. 8-bit scales stay positive: they also serve `DequantizeLinear`, for which
TensorRT and WebNN demand it, and one code of 128 is not worth having.

A scale below float16's smallest is that smallest; a block of zeros has the scale 1.
"""

import numpy as np

from fastvlm_compile.quantize.affine_kernels import quantize_rows
from fastvlm_compile.quantize.affine_rows import (
    as_rows,
    assemble,
    form_of,
    over_rows,
    spread_importance,
)
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.tensor import Codes, Floats, QuantizedTensor


def round_to_nearest(weight: Floats, scheme: Affine) -> QuantizedTensor:
    """The plain way: scales from the largest value (symmetric) or the range (asymmetric).

    Codes are those nearest at the scale as float16 holds it. The range of an asymmetric block is
    widened to hold 0, as its zero point is a code.

    Args:
        weight: [O, I] or a convolution's [O, I, height, width].
        scheme: any.

    Raises:
        SchemeError: the scheme cannot hold the shape, or values are not finite or beyond float16
            scales.
    """
    return _quantize(weight, scheme, None, np.empty(0, dtype=np.float32))


def search(weight: Floats, scheme: Affine, importance: Floats | None = None) -> QuantizedTensor:
    """The scale (and zero point) of each block that errs least, never more than `round_to_nearest`.

    A grid of scales, with both signs or three zero points; the best by its error after a least
    squares fit of the scale to the codes; then codes and scale in turn until nothing improves. What
    counts is sum(importance * (weight - dequantized)^2) over the block.

    Args:
        weight: [O, I] or a convolution's [O, I, height, width].
        scheme: any.
        importance: [I], the mean square of each input where known; None for all alike.

    Raises:
        SchemeError: see `round_to_nearest`; or importance is negative or not finite.
    """
    return _quantize(weight, scheme, importance, _ratios(scheme.bits))


def _ratios(bits: int) -> Floats:
    """Scales to try relative to rounding to nearest; a few small ones are for lone outliers."""
    outliers = np.geomspace(0.15, 0.43, 8)
    usual = np.linspace(0.45, 1.15, 32) if bits == 4 else np.linspace(0.5, 1.01, 32)
    return np.concatenate([outliers, usual]).astype(np.float32)


def _quantize(
    weight: Floats, scheme: Affine, importance: Floats | None, ratios: Floats
) -> QuantizedTensor:
    rows = as_rows(weight, scheme)
    num_blocks = scheme.num_blocks(weight.shape)
    codes: Codes = np.empty(rows.shape, dtype=np.uint8)
    scales: Floats = np.empty((len(rows), num_blocks), dtype=np.float32)
    zeros: Codes = np.empty((len(rows), num_blocks), dtype=np.uint8)
    form, counts = form_of(scheme, weight.shape), spread_importance(importance, weight.shape)

    def run(chunk: slice) -> None:
        out = (codes[chunk], scales[chunk], zeros[chunk])
        quantize_rows(rows[chunk], counts, ratios, form, out)

    over_rows(run, rows.shape)
    return assemble(scheme, weight.shape, codes, scales, zeros)
