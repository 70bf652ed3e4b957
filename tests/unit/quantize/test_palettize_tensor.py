"""Palettization of whole weights: groups, importance, channel scales, odd inputs, equal bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from palettize_samples import KINDS, group_errors, table_error, weight

from fastvlm_compile.quantize import palettize as module
from fastvlm_compile.quantize.palettize import palettize
from fastvlm_compile.quantize.scheme import Palette, SchemeError


def same(one, other) -> None:
    """Bit for bit."""
    assert one.scheme == other.scheme
    for name in ("codes", "scales", "zero_points", "tables"):
        found, expected = getattr(one, name), getattr(other, name)
        assert found.tobytes() == expected.tobytes(), name


def relative_error(values, tensor):
    return float(np.linalg.norm(tensor.dequantize() - values) / np.linalg.norm(values))


@pytest.mark.parametrize("kind", KINDS)
def test_each_group_has_its_own_least_error(kind) -> None:
    values = weight(kind, (24, 300))
    tensor = palettize(values, Palette(bits=4, group_size=8))
    assert tensor.tables.shape == (3, 16)
    for group in range(3):
        alone = palettize(values[8 * group : 8 * group + 8], Palette(bits=4, group_size=0))
        np.testing.assert_array_equal(tensor.tables[group], alone.tables[0])
        np.testing.assert_array_equal(tensor.codes[8 * group : 8 * group + 8], alone.codes)
    whole = palettize(values, Palette(bits=4, group_size=0))
    assert group_errors(values, tensor.dequantize(), 1) < group_errors(
        values, whole.dequantize(), 1
    )


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_every_code_is_that_of_the_nearest_entry(bits) -> None:
    values = weight("float32", (6, 700), seed=bits)
    tensor = palettize(values, Palette(bits=bits, group_size=3))
    for group in range(2):
        here = slice(3 * group, 3 * group + 3)
        nearest = table_error(values[here].ravel(), 1.0, tensor.tables[group])
        error = group_errors(values[here], tensor.dequantize()[here], 1)[0]
        assert error == pytest.approx(nearest, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 13), (2, 1, 3, 3), (5, 3, 1, 1), (4, 6, 2)])
@pytest.mark.parametrize("channel_scale", [False, True])
def test_tiny_and_odd_shapes_keep_their_shape(shape, channel_scale) -> None:
    values = weight("float16", (shape[0], int(np.prod(shape[1:])))).reshape(shape)
    for group_size in (0, 1):
        scheme = Palette(bits=4, group_size=group_size, channel_scale=channel_scale)
        tensor = palettize(values, scheme)
        assert tensor.shape == shape
        assert relative_error(values, tensor) < 0.2


def test_few_values_are_kept_exactly_and_the_table_repeats_its_last() -> None:
    row = np.array([3.0, -1.0, 0.0, 3.0, 0.25, -0.0], dtype=np.float32)
    tensor = palettize(np.stack([row, row]), Palette(bits=3, group_size=1))
    np.testing.assert_array_equal(tensor.dequantize(), [row, row])
    assert tensor.tables[0].tolist() == [-1, 0, 0.25, 3, 3, 3, 3, 3]
    assert tensor.codes[0].tolist() == [3, 0, 1, 3, 2, 1]


def test_zero_constant_and_mixed_channels_are_exact() -> None:
    for channel_scale in (False, True):
        scheme = Palette(bits=4, group_size=2, channel_scale=channel_scale)
        values = np.zeros((6, 40), dtype=np.float32)
        values[2:4] = 0.375
        values[5, ::2] = -0.5
        tensor = palettize(values, scheme)
        np.testing.assert_array_equal(tensor.dequantize(), values)
        assert not np.signbit(tensor.tables[0].astype(np.float32)).any(), "a negative zero"
        if channel_scale:
            assert tensor.scales.tolist() == [1, 1, 0.375, 0.375, 1, 0.5]


def test_values_that_no_float16_holds_become_the_nearest() -> None:
    values = np.array([[1 + 2.0**-12, 1 + 3 * 2.0**-12, 2.0**-30, 1e-45]], dtype=np.float32)
    tensor = palettize(values, Palette(bits=4, group_size=0))
    np.testing.assert_array_equal(tensor.dequantize(), values.astype(np.float16))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 70000.0, -65536.0])
def test_values_beyond_float16_are_refused(bad) -> None:
    values = weight("float32", (4, 8))
    values[2, 3] = bad
    with pytest.raises(SchemeError, match="cannot be palettized"):
        palettize(values, Palette(bits=4, group_size=0))
    values[2, 3] = np.sign(bad) * 65504 if not np.isnan(bad) else 65504
    palettize(values, Palette(bits=4, group_size=0))


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(SchemeError, match="do not divide"):
        palettize(weight("float16", (10, 8)), Palette(bits=4, group_size=4))


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
def test_an_importance_that_is_none_is_refused(bad) -> None:
    importance = np.ones(8, dtype=np.float32)
    importance[5] = bad
    with pytest.raises(SchemeError, match="importance"):
        palettize(weight("float16", (4, 8)), Palette(bits=4, group_size=0), importance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [90, 1300])
def test_importance_moves_the_error_away_from_inputs_that_count(kind, columns) -> None:
    values = weight(kind, (4, columns))
    importance = np.exp(np.random.default_rng(1).standard_normal(columns) * 2).astype(np.float32)
    scheme = Palette(bits=3, group_size=4)
    plain, weighted = palettize(values, scheme), palettize(values, scheme, importance)

    def error(tensor):
        return float((importance * (tensor.dequantize() - values).astype(np.float64) ** 2).sum())

    assert error(weighted) < error(plain)
    assert relative_error(values, weighted) > relative_error(values, plain)
    ones = np.ones(columns, dtype=np.float32)
    same(palettize(values, scheme, ones), plain)


def test_inputs_without_importance_get_the_nearest_entry_all_the_same() -> None:
    values = np.array([[1.0, 2.0, 3.9, -7.0, 1.1]], dtype=np.float32)
    importance = np.array([1, 1, 0, 0, 0], dtype=np.float32)
    tensor = palettize(values, Palette(bits=1, group_size=0), importance)
    assert tensor.tables.tolist() == [[1, 2]]
    assert tensor.codes.tolist() == [[0, 1, 1, 0, 0]]


def test_importance_of_a_convolution_is_that_of_its_input_channels() -> None:
    values = weight("float16", (8, 6 * 9)).reshape(8, 6, 3, 3)
    importance = np.array([4, 1, 0.5, 2, 1, 8], dtype=np.float32)
    scheme = Palette(bits=2, group_size=4)
    flat = palettize(values.reshape(8, 54), scheme, np.repeat(importance, 9))
    tensor = palettize(values, scheme, importance)
    np.testing.assert_array_equal(tensor.codes.reshape(8, 54), flat.codes)
    np.testing.assert_array_equal(tensor.tables, flat.tables)


def test_channel_scales_help_channels_of_unlike_size_and_count_errors_as_they_are() -> None:
    values = weight("float16", (8, 200)) * np.float32(2.0) ** np.arange(-8, 8, 2)[:, None]
    values = values.astype(np.float32)
    values[3] = 0
    plain = palettize(values, Palette(bits=3, group_size=0))
    scaled = palettize(values, Palette(bits=3, group_size=0, channel_scale=True))
    np.testing.assert_array_equal(
        scaled.scales[[0, 7]], np.abs(values[[0, 7]]).max(axis=1).astype(np.float16)
    )
    assert scaled.scales[3] == 1
    assert relative_error(values, scaled) < 0.9 * relative_error(values, plain)
    # Weighted by the square of the scale, the largest channel has nearly the table it has alone.
    alone = palettize(values[7:], Palette(bits=3, group_size=0, channel_scale=True))
    assert relative_error(values[7:], alone) > 0.9 * float(
        np.linalg.norm((scaled.dequantize() - values)[7]) / np.linalg.norm(values[7])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_thread_and_two_give_the_same_bytes(kind, monkeypatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_VALUES", 1)
    values = weight(kind, (16, 600))
    importance = np.linspace(0.5, 2, 600, dtype=np.float32)
    for scheme in (
        Palette(bits=4, group_size=8),
        Palette(bits=4, group_size=2, channel_scale=True),
    ):
        one = palettize(values, scheme, importance, num_threads=1)
        for _ in range(3):
            same(palettize(values, scheme, importance, num_threads=2), one)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("weighted", [False, True])
def test_counting_and_sorting_give_the_same_bytes(kind, weighted, monkeypatch) -> None:
    values = weight(kind, (8, 900))
    values[0, :3] = [0.0, -0.0, 2.0**-24]
    importance = np.linspace(0.5, 2, 900, dtype=np.float32) if weighted else None
    scheme = Palette(bits=4, group_size=8)
    assert values.size > module._MIN_COUNTED
    counted = palettize(values, scheme, importance)
    monkeypatch.setattr(module, "_MIN_COUNTED", values.size + 1)
    same(palettize(values, scheme, importance), counted)


kinds = st.sampled_from(KINDS)
schemes = st.builds(
    Palette, bits=st.sampled_from([1, 2, 3, 4, 6, 8]), group_size=st.sampled_from([0, 1, 2, 4])
)
seeds = st.integers(0, 2**32 - 1)
columns = st.sampled_from([1, 3, 40, 333, 1100])


@given(kind=kinds, scheme=schemes, seed=seeds, inputs=columns)
@settings(max_examples=60, deadline=None)
def test_what_is_palettized_stays_as_it_is(kind, scheme, seed, inputs) -> None:
    tensor = palettize(weight(kind, (4, inputs), seed), scheme)
    same(palettize(tensor.dequantize(), scheme), tensor)


@given(kind=kinds, scheme=schemes, seed=seeds, inputs=columns)
@settings(max_examples=40, deadline=None)
def test_permuted_columns_have_permuted_codes(kind, scheme, seed, inputs) -> None:
    values = weight(kind, (4, inputs), seed)
    order = np.random.default_rng(seed).permutation(inputs)
    tensor, permuted = palettize(values, scheme), palettize(values[:, order], scheme)
    np.testing.assert_array_equal(permuted.tables, tensor.tables)
    np.testing.assert_array_equal(permuted.codes, tensor.codes[:, order])


@given(kind=kinds, scheme=schemes, seed=seeds, inputs=columns, power=st.integers(-3, 3))
@settings(max_examples=40, deadline=None)
def test_a_power_of_two_scales_the_table_and_leaves_the_codes(
    kind, scheme, seed, inputs, power
) -> None:
    # Away from zero, where float16 would round to multiples of 2^-24 before and after.
    values = weight(kind, (4, inputs), seed)
    values = np.where(np.abs(values) < 2.0**-9, np.float32(0.0625), values)
    factor = np.float32(2.0**power)
    tensor, scaled = palettize(values, scheme), palettize(values * factor, scheme)
    if (np.abs(tensor.tables.astype(np.float64))[tensor.tables != 0] < 2.0**-10).any():
        return
    np.testing.assert_array_equal(scaled.codes, tensor.codes)
    np.testing.assert_array_equal(scaled.tables, tensor.tables * np.float16(factor))
