"""One definition of what codes, scales and tables mean, and of the bytes they take."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_compile.quantize import packing
from fastvlm_compile.quantize import tensor as tensors
from fastvlm_compile.quantize.packing import pack, unpack
from fastvlm_compile.quantize.scheme import (
    Affine,
    Float,
    Palette,
    SchemeError,
    check_scheme,
    describe,
)
from fastvlm_compile.quantize.tensor import QuantizedTensor

NO_HALVES = np.empty(0, dtype=np.float16)
NO_CODES = np.empty(0, dtype=np.uint8)


def affine(shape, scheme, seed=0):
    rng = np.random.default_rng(seed)
    blocks = (shape[0], scheme.num_blocks(shape))
    zero_points = rng.integers(0, 2**scheme.bits, size=blocks, dtype=np.uint8)
    return QuantizedTensor(
        scheme=scheme,
        codes=rng.integers(0, 2**scheme.bits, size=shape, dtype=np.uint8),
        scales=rng.uniform(0.001, 0.1, size=blocks).astype(np.float16),
        zero_points=NO_CODES if scheme.symmetric else zero_points,
        tables=NO_HALVES,
    )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shape", [(3, 40), (2, 16), (2, 33, 3, 3), (1, 1)])
def test_an_affine_weight_is_code_minus_zero_point_times_scale_of_its_block(shape, symmetric):
    tensor = affine(shape, Affine(bits=4, block_size=16, symmetric=symmetric))
    weight = tensor.dequantize()
    for index in np.ndindex(*shape):
        block = index[0], index[1] // 16
        zero = 8 if symmetric else int(tensor.zero_points[block])
        expected = np.float32(int(tensor.codes[index]) - zero) * np.float32(tensor.scales[block])
        assert weight[index] == expected


def palettized(group_size):
    rng = np.random.default_rng(1)
    num_tables = 6 // group_size if group_size else 1
    return QuantizedTensor(
        scheme=Palette(bits=3, group_size=group_size, channel_scale=True),
        codes=rng.integers(0, 8, size=(6, 5), dtype=np.uint8),
        scales=rng.uniform(0.5, 2, size=6).astype(np.float16),
        zero_points=NO_CODES,
        tables=np.sort(rng.normal(size=(num_tables, 8)).astype(np.float16), axis=1),
    )


def test_a_palette_weight_is_the_entry_of_its_groups_table_times_its_channels_scale():
    tensor = palettized(group_size=2)
    weight = tensor.dequantize()
    for row, column in np.ndindex(6, 5):
        entry = tensor.tables[row // 2, tensor.codes[row, column]]
        assert weight[row, column] == np.float32(entry) * np.float32(tensor.scales[row])


@pytest.mark.parametrize("group_size", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "index", [slice(0, 6), slice(2, 4), slice(3, 6), slice(1, 5), slice(0, 6, 2), np.array([5, 0])]
)
def test_some_rows_of_a_palette_are_those_of_all(group_size, index):
    tensor = palettized(group_size)
    assert np.array_equal(tensor.rows(index).dequantize(), tensor.dequantize()[index])


@pytest.mark.parametrize("group_size", [0, 1, 2, 3])
@pytest.mark.parametrize("at_once", [1, 5, 12, 21])
def test_rows_dequantized_a_few_at_a_time_are_those_of_all_at_once(
    monkeypatch, group_size, at_once
):
    tensor = palettized(group_size)
    whole = tensor.dequantize()
    monkeypatch.setattr(tensors, "_VALUES_AT_ONCE", at_once)
    assert np.array_equal(tensor.dequantize(), whole)


def test_bytes_count_packed_codes_scales_and_zero_points():
    symmetric = affine((64, 128), Affine(bits=4, block_size=32, symmetric=True))
    assert symmetric.bits_per_weight == 4 + 16 / 32
    asymmetric = affine((64, 128), Affine(bits=4, block_size=32, symmetric=False))
    assert asymmetric.bits_per_weight == 4 + 16 / 32 + 4 / 32


def test_a_code_beyond_its_bits_is_refused():
    good = affine((2, 16), Affine(bits=4, block_size=16, symmetric=True))
    with pytest.raises(AssertionError, match="beyond its bits"):
        QuantizedTensor(
            scheme=good.scheme,
            codes=good.codes + np.uint8(16),
            scales=good.scales,
            zero_points=NO_CODES,
            tables=NO_HALVES,
        )


@given(st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(1, 70), st.integers(0, 100))
def test_packing_loses_nothing_and_leaves_no_gaps(bits, count, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, size=count, dtype=np.uint8)
    packed = pack(codes, bits)
    assert packed.size == -(-count * bits // 8)
    assert np.array_equal(unpack(packed, bits, count), codes)
    number = int.from_bytes(packed.tobytes(), "little")
    assert [number >> (bits * i) & (2**bits - 1) for i in range(count)] == codes.tolist()


@pytest.mark.parametrize("bits", [3, 4, 6])
@pytest.mark.parametrize("more", [0, 1, 7])
def test_what_is_packed_in_parts_has_no_seams(monkeypatch, bits, more):
    monkeypatch.setattr(packing, "_WORDS_AT_ONCE", 8)
    monkeypatch.setattr(packing, "_PAIRS_AT_ONCE", 32)
    codes = np.random.default_rng(bits).integers(0, 2**bits, size=256 + more, dtype=np.uint8)
    packed = pack(codes, bits)
    assert np.array_equal(unpack(packed, bits, codes.size), codes)
    number = int.from_bytes(packed.tobytes(), "little")
    assert [number >> (bits * i) & (2**bits - 1) for i in range(codes.size)] == codes.tolist()


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(SchemeError, match="groups of 16 channels do not divide 24"):
        check_scheme(Palette(bits=4, group_size=16), (24, 8))


@pytest.mark.parametrize("shape", [(8,), (), (0, 4)])
def test_what_is_no_weight_is_refused(shape):
    with pytest.raises(SchemeError, match="cannot be quantized"):
        check_scheme(Affine(bits=4, block_size=32, symmetric=True), shape)


def test_an_odd_block_size_is_refused_with_the_known_ones():
    with pytest.raises(SchemeError) as error:
        Affine(bits=4, block_size=48, symmetric=True)
    assert "16, 32, 64, 128" in error.value.hint


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        (Affine(bits=4, block_size=32, symmetric=True), "int4 block 32 symmetric"),
        (Affine(bits=8, block_size=0, symmetric=False), "int8 per channel asymmetric"),
        (Palette(bits=6, group_size=16), "lut6 group 16"),
        (Palette(bits=2, group_size=0, channel_scale=True), "lut2 per tensor channel scale"),
        (Float(dtype="float16"), "float16"),
    ],
)
def test_a_scheme_says_what_it_is(scheme, text):
    assert describe(scheme) == text
