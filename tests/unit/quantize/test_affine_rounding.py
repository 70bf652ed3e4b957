"""Rounding to nearest: what every other method starts from."""

import numpy as np
import pytest

from fastvlm_compile.quantize.affine import round_to_nearest, search
from fastvlm_compile.quantize.affine_kernels import nearest_half
from fastvlm_compile.quantize.scheme import Affine, SchemeError, code_range
from fastvlm_compile.quantize.tensor import QuantizedTensor

SYMMETRIC = Affine(bits=4, block_size=32, symmetric=True)
ASYMMETRIC = Affine(bits=4, block_size=32, symmetric=False)
EVERY = [
    Affine(bits=bits, block_size=block, symmetric=symmetric)
    for bits in (4, 8)
    for block in (0, 16, 128)
    for symmetric in (True, False)
]


def made_up(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, shape) * 0.02).astype(np.float32)


def per_block(values: np.ndarray, quantized: QuantizedTensor) -> list[np.ndarray]:
    """[O, I, ...] -> the blocks [O, ...] of each row."""
    block = quantized.scheme.block_size or values.shape[1]
    return [values[:, start : start + block] for start in range(0, values.shape[1], block)]


@pytest.mark.parametrize("scheme", EVERY)
@pytest.mark.parametrize("shape", [(7, 48), (3, 129), (5, 17, 3, 3), (1, 1), (2, 40, 1, 1)])
def test_each_code_is_the_nearest_for_the_scale_as_it_is_stored(
    scheme: Affine, shape: tuple[int, ...]
) -> None:
    weight = made_up(*shape)
    quantized = round_to_nearest(weight, scheme)
    error = np.abs(quantized.dequantize() - weight)
    for change in (-1, 1):
        codes = quantized.codes.astype(np.int64) + change
        inside = (codes >= 0) & (codes <= code_range(scheme.bits))
        other = QuantizedTensor(
            scheme=scheme,
            codes=np.where(inside, codes, quantized.codes).astype(np.uint8),
            scales=quantized.scales,
            zero_points=quantized.zero_points,
            tables=quantized.tables,
        )
        worse = np.abs(other.dequantize() - weight)
        assert (error <= worse * (1 + 1e-6)).all()
        if inside.any():  # the comparison can tell
            assert (error < worse)[inside].any()


def test_an_extreme_of_either_sign_takes_the_code_that_reaches_further() -> None:
    weight = np.zeros((2, 32), dtype=np.float32)
    weight[:, 5] = [2.0, -2.0]
    quantized = round_to_nearest(weight, SYMMETRIC)
    assert quantized.scales[:, 0].tolist() == [-0.25, 0.25]
    assert quantized.codes[:, 5].tolist() == [0, 0]
    assert np.array_equal(quantized.dequantize(), weight)


@pytest.mark.parametrize("block", [0, 32])
def test_scales_of_8_bits_and_of_asymmetric_codes_are_positive(block: int) -> None:
    weight = made_up(16, 64)
    for scheme in (
        Affine(bits=8, block_size=block, symmetric=True),
        Affine(bits=8, block_size=block, symmetric=False),
        Affine(bits=4, block_size=block, symmetric=False),
    ):
        assert (round_to_nearest(weight, scheme).scales > 0).all()
        assert (search(weight, scheme).scales > 0).all()
    assert (round_to_nearest(weight, SYMMETRIC).scales < 0).any()  # 4 bits, symmetric: either sign


@pytest.mark.parametrize("scheme", EVERY)
@pytest.mark.parametrize("quantize", [round_to_nearest, search])
def test_zeros_stay_zeros_and_divide_nothing(scheme: Affine, quantize: object) -> None:
    assert callable(quantize)
    weight = made_up(4, 256)
    weight[1] = 0
    weight[2, :128] = 0
    quantized = quantize(weight, scheme)
    assert not quantized.dequantize()[weight == 0].any()
    assert (quantized.scales != 0).all()


@pytest.mark.parametrize("scheme", EVERY)
@pytest.mark.parametrize("value", [0.37, -5.0, 3e-6, -1e-7])
def test_a_constant_comes_back_but_for_the_rounding_of_its_scale(
    scheme: Affine, value: float
) -> None:
    weight = np.full((2, 33), value, dtype=np.float32)
    error = np.abs(round_to_nearest(weight, scheme).dequantize() - weight).max()
    # A float16 has 11 bits, or steps of 2^-24 where it is subnormal, each times a code.
    step = max(abs(value) * 2.0**-11, 2.0**-25 * code_range(scheme.bits))
    assert error <= step
    assert error <= abs(value)  # no tiny value is made larger than it is


@pytest.mark.parametrize("scheme", EVERY)
def test_values_below_float16_are_rounded_at_its_smallest_scale(scheme: Affine) -> None:
    weight = np.array([[1e-9, -2e-8, 4e-8, 1e-30]], dtype=np.float32)
    quantized = round_to_nearest(weight, scheme)
    assert np.isfinite(quantized.dequantize()).all()
    assert np.abs(quantized.dequantize() - weight).max() <= 2.0**-25
    assert (np.abs(quantized.scales.astype(np.float32)) == 2.0**-24).all()


@pytest.mark.parametrize("quantize", [round_to_nearest, search])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65504.0 * 7.01])
def test_what_no_float16_scale_can_hold_is_refused(quantize: object, bad: float) -> None:
    assert callable(quantize)
    weight = made_up(3, 64)
    weight[1, 40] = bad
    with pytest.raises(SchemeError, match="cannot be quantized: float16 scales of 4-bit codes"):
        quantize(weight, SYMMETRIC)
    weight[1, 40] = 65504.0 * 6.99
    assert np.isfinite(quantize(weight, SYMMETRIC).dequantize()).all()
    assert np.isfinite(quantize(weight, ASYMMETRIC).dequantize()).all()


def test_shapes_that_are_no_weights_are_refused() -> None:
    for shape in ((8,), (0, 4), (2, 0)):
        with pytest.raises(SchemeError, match="cannot be quantized"):
            round_to_nearest(np.zeros(shape, dtype=np.float32), SYMMETRIC)


def test_the_kernels_round_to_float16_as_numpy_does() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(20_000) * 10.0 ** rng.uniform(-9, 4, 20_000)
    singles = np.concatenate([values, [0.0, 65504.0, 2.0**-14, 2.0**-24, 2.0**-25]])
    for value in singles.astype(np.float32):
        assert nearest_half(value) == np.float32(np.float16(value))


def test_a_lone_block_of_a_convolution_is_whole_in_its_kernel() -> None:
    weight = made_up(4, 40, 3, 3)
    quantized = round_to_nearest(weight, SYMMETRIC)
    assert quantized.scales.shape == (4, 2)
    for index, block in enumerate(per_block(weight, quantized)):
        extreme = np.abs(block).reshape(4, -1).max(axis=1)
        assert np.allclose(np.abs(quantized.scales[:, index]), extreme / 8, rtol=1e-3)
