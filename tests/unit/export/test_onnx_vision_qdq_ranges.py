"""Activations get the integers that err least, the same ones everywhere, and never overflow."""

import numpy as np
import pytest

from fastvlm_compile.export.onnx.activation_ranges import (
    ActivationError,
    ActivationRange,
    Histogram,
    choose_range,
)
from fastvlm_compile.export.onnx.saturation import safe_level
from fastvlm_compile.export.onnx.vision_qdq import fits_int32


def histogram_of(*tensors: np.ndarray) -> Histogram:
    histogram = Histogram()
    for values in tensors:
        histogram.add(values, float(values.min()), float(values.max()))
    return histogram


def rounded(values: np.ndarray, found: ActivationRange, max_level: int = 255) -> np.ndarray:
    codes = np.clip(np.rint(values / found.scale) + found.zero_point, 0, max_level)
    result: np.ndarray = (codes - found.zero_point) * found.scale
    return result


def cubed(values: np.ndarray, found: ActivationRange) -> float:
    return float((np.abs(rounded(values, found) - values) ** 3).sum())


@pytest.fixture
def normal() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(50_000).astype(np.float32)


def test_a_histogram_counts_the_same_in_whatever_order_the_range_grew(normal: np.ndarray) -> None:
    small, large = normal / 1000, normal * 100
    one, other = histogram_of(small, large), histogram_of(large, small)
    assert one.exponent == other.exponent
    assert np.array_equal(one.counts, other.counts)
    assert one.counts.sum() == 2 * normal.size
    assert (one.low, one.high) == (large.min(), large.max())
    # Negative control: other values are another histogram.
    assert not np.array_equal(one.counts, histogram_of(large, -large).counts)


def test_bins_hold_the_values_between_their_edges(normal: np.ndarray) -> None:
    histogram = histogram_of(normal)
    centres, counts = histogram.occupied()
    index = np.abs(centres - 0.5).argmin()
    low, high = (centres[index] + side * histogram.width / 2 for side in (-1, 1))
    assert counts[index] == np.count_nonzero((normal >= low) & (normal < high))


@pytest.mark.parametrize("max_level", [130, 255])
def test_an_evenly_filled_range_is_kept_but_for_a_step_and_no_coarser_than_needed(
    max_level: int,
) -> None:
    values = np.linspace(-1, 3, 20_001, dtype=np.float32)
    found = choose_range(histogram_of(values), max_level)
    assert np.abs(rounded(values, found, max_level) - values).max() <= found.scale
    assert found.scale <= 1.1 * 4 / (max_level - 1)
    assert np.abs(rounded(values, found, max_level - 9) - values).max() > 5 * found.scale  # control


def test_a_lone_outlier_is_clipped_when_that_errs_less(normal: np.ndarray) -> None:
    # So many small values that their rounding outweighs the clipping of one.
    values = np.append(np.tile(normal, 40), np.float32(9)).astype(np.float32)
    found = choose_range(histogram_of(values), 255)
    whole = ActivationRange(
        scale=np.float32((9 - values.min()) / 255),
        zero_point=np.uint8(round(-values.min() * 255 / (9 - values.min()))),
    )
    assert cubed(values, found) < cubed(values, whole)
    # Negative control: a tenth of the values being that large, nothing of them is clipped.
    many = np.append(normal, np.full(5000, 9, dtype=np.float32))
    kept = choose_range(histogram_of(many), 255)
    assert rounded(np.array([9.0]), kept)[0] == pytest.approx(9, abs=float(kept.scale))


def test_what_a_following_function_flattens_is_not_kept(normal: np.ndarray) -> None:
    values = 4 * normal
    plain = choose_range(histogram_of(values), 255)
    before_relu = choose_range(histogram_of(values), 255, lambda x: np.maximum(x, 0))
    assert before_relu.zero_point == 0
    assert before_relu.scale <= 0.6 * plain.scale


def test_rounding_noise_of_another_machine_does_not_reach_the_range(normal: np.ndarray) -> None:
    noisy = normal * (1 + 1e-6 * np.random.default_rng(1).standard_normal(normal.size))
    first = choose_range(histogram_of(normal), 131)
    assert choose_range(histogram_of(noisy.astype(np.float32)), 131) == first
    # Negative control: a tenth more is another range.
    assert choose_range(histogram_of(normal * np.float32(1.1)), 131) != first


def test_zero_is_exact_and_an_activation_that_is_always_zero_is_held() -> None:
    found = choose_range(histogram_of(np.linspace(2, 3, 100, dtype=np.float32)), 255)
    assert rounded(np.zeros(1), found)[0] == 0
    dead = choose_range(histogram_of(np.zeros(10, dtype=np.float32)), 255)
    assert dead == ActivationRange(scale=np.float32(1), zero_point=np.uint8(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_not_finite_is_an_error(bad: float) -> None:
    values = np.array([1.0, bad], dtype=np.float32)
    with pytest.raises(ActivationError, match="NaN or infinite"):
        histogram_of(values)
    with pytest.raises(ActivationError, match="nothing was observed"):
        choose_range(Histogram(), 255)


def paired_sums(codes: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums as an x64 processor without VNNI computes them, and as they should be."""
    products = weight.astype(np.int64) * codes.astype(np.int64)
    pairs = products.reshape(len(weight), -1, 2).sum(axis=2)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1), products.sum(axis=1)


def test_codes_up_to_the_safe_level_never_saturate_and_one_more_may() -> None:
    weight = np.random.default_rng(0).integers(-128, 128, (64, 96)).astype(np.int8)
    level = safe_level(weight)
    worst = np.where(weight > 0, 1, 0), np.where(weight < 0, 1, 0)
    for side in worst:
        for row in side:  # the image that drives one output as far as it goes
            assert np.equal(*paired_sums(row * level, weight)).all()
    beyond = [
        np.equal(*paired_sums(row * (level + 1), weight)).all() for side in worst for row in side
    ]
    assert not all(beyond)


def test_small_weights_leave_all_levels_and_odd_channels_count_alone() -> None:
    assert safe_level(np.full((4, 7), 63, dtype=np.int8)) == 255
    assert safe_level(np.full((4, 7), 127, dtype=np.int8)) == 129
    assert safe_level(np.full((4, 1), -128, dtype=np.int8)) == 255
    assert safe_level(np.zeros((4, 4, 1, 1), dtype=np.int8)) == 255


def test_a_bias_that_int32_cannot_hold_is_noticed() -> None:
    bias = np.array([1.0, -1.0], dtype=np.float32)
    assert fits_int32(bias, np.float32(0.01), np.array([[1e-3], [1e-3]], dtype=np.float16))
    dead = np.array([[1e-3], [6e-8]], dtype=np.float16)
    assert not fits_int32(bias, np.float32(0.001), dead)
