"""Compiled loops over blocks of weights: nearest codes, and the search for a block's scale.

They release the interpreter's lock, so that threads can take rows apart, and they keep the order of
every floating-point operation: the result does not depend on the number of threads, nor on how wide
the processor's registers are.

Shape letters: O output channels, F inputs of one (input channels times the kernel's positions), B
blocks of an output channel. All numbers are float32 unless said otherwise.
"""

from typing import NamedTuple

import numba
import numpy as np

from fastvlm_compile.quantize.tensor import Codes, Floats

Single = np.float32

HALF_MAX = 65504.0
HALF_MIN = 2.0**-24
"""The largest and the smallest positive float16."""

compiled = numba.njit(nogil=True, error_model="numpy")


class Form(NamedTuple):
    """What a scheme asks of every block.

    Attributes:
        block: values of a block; the last one of a row may be short.
        top: the largest code.
        symmetric: the zero point is (top + 1) / 2 everywhere.
        signed: of a symmetric form: scales may be negative.
    """

    block: int
    top: Single
    symmetric: bool
    signed: bool


@compiled
def nearest_half(value: Single) -> Single:
    """The float16 nearest to a float32 below 65520 in size."""
    size = abs(value)
    if size < Single(2.0**-14):  # float16's subnormals
        rounded = np.rint(size * Single(2.0**24)) * Single(2.0**-24)
    else:  # Veltkamp's splitting leaves the upper 11 of 24 bits (Dekker 1971)
        wide = size * Single(2.0**13 + 1)
        rounded = wide - (wide - size)
    result: Single = rounded if value >= 0 else -rounded
    return result


@compiled
def nearest_code(value: Single, inverse: Single, zero: Single, top: Single) -> Single:
    """The code whose value is nearest, given the scale's inverse and the zero point."""
    return min(max(np.rint(value * inverse) + zero, Single(0)), top)


@compiled
def _rounding_scale(values: Floats, form: Form) -> tuple[Single, Single]:
    """Scale and zero point of rounding to nearest; see `affine.round_to_nearest`."""
    low = high = Single(0)
    for value in values:
        low, high = min(low, value), max(high, value)
    half = (form.top + Single(1)) / Single(2)
    if low == high:  # all zero: the scale could be anything, 1 harms nobody who divides by it
        return Single(1), half
    if not form.symmetric:
        scale = max(nearest_half((high - low) / form.top), Single(HALF_MIN))
        return scale, min(max(np.rint(-low / scale), Single(0)), form.top)
    if not form.signed:
        scale = max(high / (half - Single(1)), -low / half)
        return max(nearest_half(scale), Single(HALF_MIN)), half
    scale = max(nearest_half(max(high, -low) / half), Single(HALF_MIN))
    return -scale if high > -low else scale, half


@compiled
def _measure(
    values: Floats, importance: Floats, scale: Single, zero: Single, top: Single
) -> tuple[np.float64, Single]:
    """Weighted squared error of a block at a scale, and the scale that suits its codes best."""
    error = product = square = np.float64(0)
    inverse = Single(1) / scale
    for j in range(len(values)):
        step = np.float64(nearest_code(values[j], inverse, zero, top) - zero)
        value, weight = np.float64(values[j]), np.float64(importance[j])
        difference = value - step * np.float64(scale)
        error += weight * difference * difference
        product += weight * value * step
        square += weight * step * step
    return error, Single(product / square) if square > 0 else scale


@compiled
def _candidates(values: Floats, ratios: Floats, scale: Single, form: Form) -> tuple[Floats, Floats]:
    """Inverse scales and zero points to try, [signs or zero points, ratios].

    Args:
        values: of a block.
        ratios: of the scales to try to `scale`.
        scale: what rounding to nearest takes.
        form: see there.
    """
    num_kinds = 3 if not form.symmetric else 2 if form.signed else 1
    inverses = np.empty((num_kinds, len(ratios)), dtype=np.float32)
    zeros = np.full((num_kinds, len(ratios)), (form.top + Single(1)) / Single(2))
    middle = (values.max() + values.min()) / Single(2)
    for kind in range(num_kinds):
        for k in range(len(ratios)):
            inverse = Single(1) / (scale * ratios[k])
            inverses[kind, k] = -inverse if form.symmetric and kind == 1 else inverse
            if not form.symmetric:  # the values' middle at the codes' middle, or beside it
                zero = np.rint(form.top / Single(2) - middle * inverse) + Single(kind - 1)
                zeros[kind, k] = min(max(zero, Single(0)), form.top)
    return inverses, zeros


@compiled
def _best_candidate(
    values: Floats, importance: Floats, inverses: Floats, zeros: Floats, top: Single
) -> tuple[Single, Single]:
    """Scale and zero point of the candidate whose codes, with their best scale, err least.

    With steps t (code - zero point), the best scale is sum(wxt) / sum(wtt), and the error falls by
    sum(wxt)^2 / sum(wtt). The inner loop runs over candidates, which are independent of each other.
    """
    count = len(inverses)
    products = np.zeros(count, dtype=np.float32)
    squares = np.zeros(count, dtype=np.float32)
    lows, highs = -zeros, top - zeros
    for j in range(len(values)):
        value, weight = values[j], importance[j]
        weighted = value * weight
        for k in range(count):
            step = min(max(np.rint(value * inverses[k]), lows[k]), highs[k])
            products[k] += weighted * step
            squares[k] += weight * (step * step)
    best, best_gain, best_scale = 0, Single(-1), Single(0)
    for k in range(count):
        if squares[k] > 0:
            scale = products[k] / squares[k]
            if products[k] * scale > best_gain:
                best, best_gain, best_scale = k, products[k] * scale, scale
    return best_scale, zeros[best]


@compiled
def _refine(
    values: Floats, importance: Floats, scale: Single, zero: Single, top: Single
) -> tuple[Single, np.float64]:
    """Codes for the scale, then the scale for the codes, until the error falls no further.

    Returns:
        The best float16 scale met and its error; infinite where the first is none.
    """
    best_scale, best_error = Single(0), np.float64(np.inf)
    for _ in range(64):  # it ends by itself far sooner
        if not abs(scale) <= Single(HALF_MAX):
            break
        scale = nearest_half(scale)
        if scale == best_scale:  # 0 at first
            break
        error, fitting = _measure(values, importance, scale, zero, top)
        if not error < best_error:
            break
        best_scale, best_error, scale = scale, error, fitting
    return best_scale, best_error


@compiled
def _searched_scale(
    values: Floats, importance: Floats, ratios: Floats, form: Form
) -> tuple[Single, Single]:
    """Scale and zero point of one block; rounding to nearest, refined, stands until beaten."""
    start, zero = _rounding_scale(values, form)
    inverses, zeros = _candidates(values, ratios, start, form)
    scale, error = _refine(values, importance, start, zero, form.top)
    if error == 0:
        return scale, zero
    for kind in range(len(inverses)):
        first, other_zero = _best_candidate(
            values, importance, inverses[kind], zeros[kind], form.top
        )
        if first <= 0 and not form.signed:
            continue
        other, other_error = _refine(values, importance, first, other_zero, form.top)
        if other_error < error:
            scale, zero, error = other, other_zero, other_error
    return scale, zero


@compiled
def quantize_rows(
    weight: Floats,
    importance: Floats,
    ratios: Floats,
    form: Form,
    out: tuple[Codes, Floats, Codes],
) -> None:
    """Quantize rows.

    Args:
        weight: [O, F], finite.
        importance: [F], not negative: what a squared error counts there.
        ratios: scales to try, in units of the one that rounds to nearest; none to keep to that one.
        form: see there.
        out: where to write codes [O, F], scales [O, B] (float16 values) and zero points [O, B].
    """
    codes, scales, zeros = out
    for row in range(len(weight)):
        for index in range(scales.shape[1]):
            start = index * form.block
            values = weight[row, start : start + form.block]
            if len(ratios) > 0:
                scale, zero = _searched_scale(
                    values, importance[start : start + form.block], ratios, form
                )
            else:
                scale, zero = _rounding_scale(values, form)
            inverse = Single(1) / scale
            for j in range(len(values)):
                code = nearest_code(values[j], inverse, zero, form.top)
                codes[row, start + j] = np.uint8(code)
            scales[row, index], zeros[row, index] = scale, np.uint8(zero)
