"""Distances between tensors: right numbers, and NaN, shape and sign never slip through."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from validation.metrics import (
    smallest_atol,
    smallest_rtol,
    structural_problems,
    tensor_metrics,
)


def sample(seed: int = 0, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_metrics_equal_their_definitions_on_a_worked_example():
    reference = np.array([3.0, 4.0], dtype=np.float32)
    candidate = np.array([3.0, 3.0], dtype=np.float32)
    metrics = tensor_metrics(reference, candidate)
    assert metrics.relative_l2 == pytest.approx(1 / 5)
    assert metrics.max_abs == 1.0
    assert metrics.cosine == pytest.approx((9 + 12) / (5 * math.sqrt(18)))
    # Peak 4, mean square error (0 + 1) / 2.
    assert metrics.psnr_db == pytest.approx(20 * math.log10(4 / math.sqrt(0.5)))


def test_psnr_divides_by_the_number_of_elements_and_not_by_the_batch():
    one, many = sample(shape=(1, 64)), sample(shape=(1, 64)).repeat(8, axis=0)
    assert tensor_metrics(one, one * 1.01).psnr_db == pytest.approx(
        tensor_metrics(many, many * 1.01).psnr_db
    )


def test_equal_tensors_are_at_distance_zero_and_infinite_psnr():
    metrics = tensor_metrics(sample(), sample())
    assert (metrics.relative_l2, metrics.max_abs, metrics.psnr_db) == (0.0, 0.0, math.inf)
    assert metrics.cosine == pytest.approx(1.0)


@pytest.mark.parametrize("where", ["reference", "candidate"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_single_nan_or_infinity_makes_no_metric_look_good(where, bad):
    arrays = {"reference": sample(), "candidate": sample()}
    arrays[where][1, 2, 3] = bad
    metrics = tensor_metrics(**arrays)
    assert all(math.isnan(value) for _, value in metrics.items())
    assert math.isnan(smallest_atol(**arrays, rtol=0.1))
    assert math.isnan(smallest_rtol(**arrays, atol=0.1))
    assert structural_problems({"x": arrays["reference"]}, {"x": arrays["candidate"]})


def test_all_nan_gives_nan_everywhere():
    bad = np.full((2, 2), np.nan, dtype=np.float32)
    assert all(math.isnan(value) for _, value in tensor_metrics(bad, bad).items())
    assert math.isnan(smallest_atol(bad, bad, rtol=1.0))
    assert math.isnan(smallest_rtol(bad, bad, atol=1.0))


def test_a_zero_reference_is_met_only_by_zero():
    zero = np.zeros((2, 3), dtype=np.float32)
    met = tensor_metrics(zero, zero)
    assert (met.relative_l2, met.cosine, met.psnr_db) == (0.0, 1.0, math.inf)
    missed = tensor_metrics(zero, zero + 1e-6)
    assert (missed.relative_l2, missed.cosine, missed.psnr_db) == (math.inf, 0.0, -math.inf)


def test_a_zero_candidate_is_not_similar_to_anything():
    metrics = tensor_metrics(sample(), np.zeros_like(sample()))
    assert metrics.relative_l2 == pytest.approx(1.0)
    assert metrics.cosine == 0.0


def test_a_flipped_sign_is_seen_by_every_metric():
    metrics = tensor_metrics(sample(), -sample())
    assert metrics.relative_l2 == pytest.approx(2.0)
    assert metrics.cosine == pytest.approx(-1.0)
    assert metrics.psnr_db < 20


def test_a_scale_of_two_percent_is_seen_although_the_cosine_is_one():
    metrics = tensor_metrics(sample(), sample() * np.float32(1.02))
    assert metrics.cosine == pytest.approx(1.0)
    assert metrics.relative_l2 == pytest.approx(0.02, rel=1e-4)


def test_half_precision_is_compared_in_double():
    big = np.array([6e4, 6e4], dtype=np.float16)  # the square overflows in float16
    assert tensor_metrics(big, big).relative_l2 == 0.0
    assert math.isfinite(tensor_metrics(big, -big).relative_l2)


def test_metrics_refuse_shapes_that_only_broadcast():
    with pytest.raises(ValueError, match="cannot compare"):
        tensor_metrics(np.ones((2, 3)), np.ones((1, 3)))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"y": np.ones((2, 3), np.float32)}, "missing x; found y"),
        ({"x": np.ones((2, 3), np.float32), "y": np.ones(1, np.float32)}, "unexpected y"),
        ({"x": np.ones((3, 2), np.float32)}, "expected shape [2, 3], found [3, 2]"),
        ({"x": np.ones((2, 3), np.float64)}, "expected dtype float32, found float64"),
        ({"x": np.full((2, 3), np.nan, np.float32)}, "found has 6 of 6 NaN or infinite"),
    ],
)
def test_structural_problems_name_what_was_expected_and_found(found, words):
    expected = {"x": np.ones((2, 3), np.float32)}
    assert any(words in problem for problem in structural_problems(expected, found))


def test_equal_structures_have_no_problems_whatever_their_values():
    assert structural_problems({"x": sample(0)}, {"x": sample(1)}) == ()


def test_an_empty_array_is_a_problem_and_not_a_pass():
    empty = np.ones((0, 3), np.float32)
    assert structural_problems({"x": empty}, {"x": empty})


finite = hnp.arrays(np.float32, (6,), elements=st.floats(-1e3, 1e3, width=32))


@settings(max_examples=60, deadline=None)
@given(reference=finite, candidate=finite, tolerance=st.floats(0, 10))
def test_the_smallest_tolerance_passes_and_anything_smaller_does_not(
    reference, candidate, tolerance
):
    r, c = reference.astype(np.float64), candidate.astype(np.float64)
    atol = smallest_atol(r, c, rtol=tolerance)
    assert np.all(np.abs(c - r) <= atol + tolerance * np.abs(r))
    if atol > 1e-6:
        assert not np.all(np.abs(c - r) <= atol * 0.999 + tolerance * np.abs(r))
    rtol = smallest_rtol(r, c, atol=tolerance)
    if math.isfinite(rtol):
        assert np.all(np.abs(c - r) <= tolerance + rtol * np.abs(r))
    else:
        assert np.any((r == 0) | (np.abs(c - r) / np.maximum(np.abs(r), 1e-300) > 1e300))
