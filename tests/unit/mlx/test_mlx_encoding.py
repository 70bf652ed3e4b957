"""MLX's arrays are the same integers and scales, and `mlx` dequantizes them to the same numbers."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from fastvlm_compile.export.mlx.encoding import MlxArrays, MlxFileError, decode, encode
from fastvlm_compile.export.mlx.limits import MlxUnsupportedError
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.tensor import QuantizedTensor

FORMS = [(bits, block) for bits in (4, 8) for block in (32, 64, 128)]


def random_tensor(bits: int, block: int, *, scales: np.ndarray | None = None) -> QuantizedTensor:
    rng = np.random.default_rng(bits + block)
    if scales is None:
        # From 1e-7, a subnormal of float16, to 10.
        scales = (10.0 ** rng.uniform(-7, 1, (6, 256 // block))).astype(np.float16)
    return QuantizedTensor(
        scheme=Affine(bits=4 if bits == 4 else 8, block_size=block, symmetric=True),
        codes=rng.integers(0, 2**bits, (6, 256)).astype(np.uint8),
        scales=scales,
        zero_points=np.empty(0, dtype=np.uint8),
        tables=np.empty(0, dtype=np.float16),
    )


def asymmetric(tensor: QuantizedTensor, zero_points: np.ndarray) -> QuantizedTensor:
    assert isinstance(tensor.scheme, Affine)
    return replace(tensor, scheme=replace(tensor.scheme, symmetric=False), zero_points=zero_points)


def dequantized_by_mlx(arrays: MlxArrays, bits: int, block: int, *, wide: bool) -> np.ndarray:
    dtype = mx.float32 if wide else mx.float16
    return np.array(
        mx.dequantize(
            mx.array(arrays.weight),
            mx.array(arrays.scales).astype(dtype),
            mx.array(arrays.biases).astype(dtype),
            group_size=block,
            bits=bits,
        )
    )


def assert_same(found: QuantizedTensor, expected: QuantizedTensor) -> None:
    assert found.scheme == expected.scheme
    for part in ("codes", "scales", "zero_points", "tables"):
        one, other = getattr(found, part), getattr(expected, part)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), part


@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_arrays_read_back_are_the_tensor_bit_for_bit(bits: int, block: int) -> None:
    tensor = random_tensor(bits, block)
    arrays = encode("a", tensor)
    assert arrays.weight.dtype == np.uint32
    assert arrays.weight.shape == (6, 256 * bits // 32)
    assert_same(decode("a", arrays, bits=4 if bits == 4 else 8, group_size=block), tensor)


@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_mlx_dequantizes_to_exactly_our_numbers_in_float32(bits: int, block: int) -> None:
    tensor = random_tensor(bits, block)
    found = dequantized_by_mlx(encode("a", tensor), bits, block, wide=True)
    np.testing.assert_array_equal(found, tensor.dequantize())


@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_in_float16_mlx_rounds_the_product_and_the_sum(bits: int, block: int) -> None:
    scales = np.full((6, 256 // block), 0.01, dtype=np.float16)
    tensor = random_tensor(bits, block, scales=scales)
    found = dequantized_by_mlx(encode("a", tensor), bits, block, wide=False).astype(np.float64)
    # Half a unit in the last place of the product, which is at most (2^bits - 1) scales, and as
    # much of the sum.
    bound = 2 * (2**bits - 1) * 0.01 * 2.0**-11
    difference = np.abs(found - tensor.dequantize())
    assert difference.max() <= bound
    assert difference.max() > 0, "mlx became exact: simplify what is said of float16"


@pytest.mark.parametrize("damage", ["codes", "scales", "biases"])
def test_a_changed_array_changes_what_mlx_dequantizes(damage: str) -> None:
    tensor = random_tensor(4, 64)
    arrays = encode("a", tensor)
    if damage == "codes":  # the order of the nibbles
        packed = arrays.weight.view(np.uint8)
        swapped = ((packed >> 4) | (packed << 4)).view(np.uint32)
        arrays = replace(arrays, weight=swapped)
    elif damage == "scales":
        arrays = replace(arrays, scales=np.roll(arrays.scales, 1, axis=1))
    else:
        arrays = replace(arrays, biases=arrays.biases - arrays.scales)
    found = dequantized_by_mlx(arrays, 4, 64, wide=True)
    assert not np.array_equal(found, tensor.dequantize())


def test_a_block_of_zeros_is_held() -> None:
    scales = np.zeros((6, 4), dtype=np.float16)
    scales[0, 0] = 0.5
    tensor = random_tensor(4, 64, scales=scales)
    arrays = encode("a", tensor)
    assert_same(decode("a", arrays, bits=4, group_size=64), tensor)
    found = dequantized_by_mlx(arrays, 4, 64, wide=True)
    np.testing.assert_array_equal(found, tensor.dequantize())


def test_asymmetric_blocks_are_held_where_the_bias_is_exact() -> None:
    tensor = random_tensor(4, 64, scales=np.full((6, 4), 0.25, dtype=np.float16))
    zero_points = np.random.default_rng(0).integers(0, 16, (6, 4)).astype(np.uint8)
    tensor = asymmetric(tensor, zero_points)
    arrays = encode("a", tensor)
    assert_same(decode("a", arrays, bits=4, group_size=64), tensor)
    found = dequantized_by_mlx(arrays, 4, 64, wide=True)
    np.testing.assert_array_equal(found, tensor.dequantize())


def test_an_asymmetric_block_whose_bias_is_rounded_is_refused() -> None:
    scales = np.full((6, 4), 0.25, dtype=np.float16)
    scales[2, 1] = 0.1  # 11 significant bits: three times that has more
    tensor = asymmetric(random_tensor(4, 64, scales=scales), np.full((6, 4), 3, dtype=np.uint8))
    with pytest.raises(MlxUnsupportedError, match=r"channel 2, block 1.*not hold") as caught:
        encode("model.a.weight", tensor)
    assert "symmetric" in caught.value.hint


def test_a_symmetric_scale_whose_bias_overflows_is_refused() -> None:
    scales = np.full((6, 4), 511, dtype=np.float16)
    encode("a", random_tensor(8, 64, scales=scales))  # 128 * 511 = 65408 is a float16
    scales[5, 3] = 512
    with pytest.raises(MlxUnsupportedError, match=r"channel 5, block 3.*beyond float16"):
        encode("a", random_tensor(8, 64, scales=scales))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scale_that_is_no_number_is_refused(value: float) -> None:
    scales = np.full((6, 4), 0.5, dtype=np.float16)
    scales[0, 2] = value
    with pytest.raises(MlxUnsupportedError, match="channel 0, block 2"):
        encode("a", random_tensor(4, 64, scales=scales))


def test_what_mlx_itself_quantized_is_not_read_as_our_integers() -> None:
    weight = mx.array(np.random.default_rng(0).standard_normal((8, 64)).astype(np.float16) + 5)
    packed, scales, biases = mx.quantize(weight, group_size=64, bits=4)
    arrays = MlxArrays(weight=np.array(packed), scales=np.array(scales), biases=np.array(biases))
    with pytest.raises(MlxFileError, match="is no zero point"):
        decode("a", arrays, bits=4, group_size=64)


def test_scales_of_another_group_size_are_noticed() -> None:
    arrays = encode("a", random_tensor(4, 64))
    with pytest.raises(MlxFileError, match="groups of 32"):
        decode("a", arrays, bits=4, group_size=32)
