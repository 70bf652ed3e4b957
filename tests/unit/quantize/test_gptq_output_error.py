"""GPTQ: what counts is what a layer puts out for the inputs it sees."""

from itertools import pairwise

import numpy as np
import pytest

from fastvlm_compile.quantize.affine import round_to_nearest, search
from fastvlm_compile.quantize.gptq import HessianError, gptq
from fastvlm_compile.quantize.scheme import Affine, SchemeError
from fastvlm_compile.quantize.tensor import QuantizedTensor

SCHEMES = [
    Affine(bits=4, block_size=32, symmetric=True),
    Affine(bits=4, block_size=128, symmetric=True),
    Affine(bits=4, block_size=32, symmetric=False),
    Affine(bits=4, block_size=0, symmetric=True),
    Affine(bits=8, block_size=32, symmetric=True),
]
INT4 = SCHEMES[0]


def made_up(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(np.float32)


def inputs(count: int, size: int, seed: int = 1, outliers: bool = True) -> np.ndarray:
    """Correlated activations of uneven strength [count, size], as a network has them.

    What is common to all seeds makes them one distribution, from which each draws other samples.
    """
    fixed = np.random.default_rng(99)
    mixing = fixed.standard_normal((size // 4, size))
    strength = np.exp(fixed.standard_normal(size) * 0.7) if outliers else np.ones(size)
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((count, size // 4)) @ mixing
    return (hidden + 2 * rng.standard_normal((count, size))) * strength


def second_moments(x: np.ndarray) -> np.ndarray:
    return (x.T @ x / len(x)).astype(np.float32)


def output_error(weight: np.ndarray, quantized: QuantizedTensor, hessian: np.ndarray) -> float:
    error = (weight.astype(np.float64) - quantized.dequantize()).reshape(len(weight), -1)
    return float(np.trace(error @ hessian @ error.T))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_beats_search_on_inputs_like_those_it_has_seen(scheme: Affine) -> None:
    weight = made_up(48, 192)
    hessian = second_moments(inputs(1000, 192))
    unseen = second_moments(inputs(1000, 192, seed=2))
    calibrated = gptq(weight, scheme, hessian)
    importance = np.diag(hessian).copy()
    for h in (hessian, unseen):
        assert output_error(weight, calibrated, h) < 0.6 * output_error(
            weight, search(weight, scheme, importance), h
        )
    # What it pays with is the weights themselves, of which nobody asks.
    plain = np.eye(192)
    assert output_error(weight, calibrated, plain) > output_error(
        weight, search(weight, scheme), plain
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_search_where_inputs_say_nothing(scheme: Affine) -> None:
    weight = made_up(24, 192)
    identity = np.eye(192, dtype=np.float32)
    calibrated = output_error(weight, gptq(weight, scheme, identity), identity)
    searched = output_error(weight, search(weight, scheme), identity)
    assert 0.999 * searched < calibrated <= searched * (1 + 1e-5)


def test_inputs_of_another_kind_do_not_gain() -> None:
    weight = made_up(32, 128)
    hessian = second_moments(inputs(800, 128))
    other = np.linalg.inv(hessian.astype(np.float64) + np.eye(128))
    calibrated, searched = gptq(weight, INT4, hessian), search(weight, INT4)
    assert output_error(weight, calibrated, other) > output_error(weight, searched, other)


def test_no_row_is_worse_than_searched() -> None:
    weight = made_up(64, 96)
    hessian = second_moments(inputs(60, 96)).astype(np.float64)  # fewer inputs than channels
    importance = np.diag(hessian).astype(np.float32)
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(96)
    for scheme in SCHEMES:
        errors = [
            weight - quantized.dequantize()
            for quantized in (gptq(weight, scheme, hessian), search(weight, scheme, importance))
        ]
        ours, searched = (np.einsum("oi,ij,oj->o", e, damped, e) for e in errors)
        assert (ours <= searched * (1 + 1e-4)).all()


def test_each_part_does_its_share() -> None:
    weight = made_up(64, 256)
    hessian = second_moments(inputs(1200, 256))
    bare = gptq(weight, INT4, hessian, act_order=False, rounds=0)
    ordered = gptq(weight, INT4, hessian, act_order=True, rounds=0)
    whole = gptq(weight, INT4, hessian)
    errors = [
        output_error(weight, quantized, hessian)
        for quantized in (search(weight, INT4), bare, ordered, whole)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.95 * errors[2]


def test_a_round_of_descent_never_errs_more() -> None:
    weight = made_up(16, 160)
    hessian = second_moments(inputs(900, 160))
    errors = [
        output_error(weight, gptq(weight, INT4, hessian, rounds=rounds, percent_damp=0), hessian)
        for rounds in range(5)
    ]
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in pairwise(errors))
    assert errors[-1] < 0.97 * errors[0]


def test_dead_inputs_are_rounded_as_they_stand() -> None:
    weight = made_up(16, 64)
    x = inputs(500, 64)
    x[:, [3, 40, 41]] = 0
    quantized = gptq(weight, INT4, second_moments(x))
    step = np.abs(quantized.scales.astype(np.float32)).repeat(32, axis=1)
    error = np.abs(quantized.dequantize() - weight)
    inside = (quantized.codes > 0) & (quantized.codes < 15)
    dead = np.zeros(64, dtype=bool)
    dead[[3, 40, 41]] = True
    assert (error <= step * 0.501)[inside & dead].all()
    assert not (error <= step * 0.501)[inside & ~dead].all()  # the others make up for errors


def test_inputs_that_are_all_dead_or_all_alike_are_quantized() -> None:
    weight = made_up(8, 64)
    nothing = gptq(weight, INT4, np.zeros((64, 64), dtype=np.float32))
    assert np.abs(nothing.dequantize() - weight).max() < 0.02
    alike = gptq(weight, INT4, np.ones((64, 64), dtype=np.float32), percent_damp=0)
    total = (alike.dequantize() - weight).sum(axis=1)  # the only thing that such inputs see
    assert np.abs(total).max() < 0.1 * np.abs(nothing.dequantize() - weight).sum(axis=1).max()


def test_zero_rows_and_convolutions_and_odd_sizes_work() -> None:
    weight = made_up(6, 33, 3, 3)
    weight[2] = 0
    hessian = second_moments(inputs(900, 33 * 9))
    quantized = gptq(weight, INT4, hessian)
    assert quantized.shape == weight.shape
    assert not quantized.dequantize()[2].any()
    assert output_error(weight, quantized, hessian) < 0.7 * output_error(
        weight, search(weight, INT4), hessian
    )
    single = np.array([[0.5]], dtype=np.float32)
    assert np.isclose(gptq(single, INT4, np.ones((1, 1))).dequantize()[0, 0], 0.5, rtol=1e-3)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_unit_of_the_inputs_does_not_matter(factor: float) -> None:
    weight = made_up(8, 64)
    hessian = second_moments(inputs(500, 64)).astype(np.float64)
    expected, other = gptq(weight, INT4, hessian), gptq(weight, INT4, hessian * factor)
    assert (expected.codes == other.codes).mean() > 0.99  # rounded ties may fall otherwise


@pytest.mark.parametrize("where", [(0, 0), (3, 5)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_moments_that_are_not_finite_are_refused(where: tuple[int, int], bad: float) -> None:
    hessian = np.eye(32, dtype=np.float32)
    hessian[where] = bad
    with pytest.raises(HessianError, match="not finite, negative or not symmetric"):
        gptq(made_up(4, 32), INT4, hessian)


def test_moments_that_no_inputs_can_have_are_refused() -> None:
    negative = np.eye(32)
    negative[4, 4] = -1
    skewed = np.eye(32)
    skewed[2, 7] = 0.5
    for bad in (negative, skewed):
        with pytest.raises(HessianError, match="not finite, negative or not symmetric"):
            gptq(made_up(4, 32), INT4, bad)
    indefinite = np.full((32, 32), 5.0) - 4.0 * np.eye(32)
    indefinite[:16, 16:] *= -1
    indefinite[16:, :16] *= 1 - 2
    indefinite[0, 1] = indefinite[1, 0] = -9.0
    with pytest.raises(HessianError, match="no Cholesky factor"):
        gptq(made_up(4, 32), INT4, indefinite)


def test_a_singular_matrix_is_damped_until_it_can_be_used() -> None:
    weight = made_up(8, 64)
    few = second_moments(inputs(3, 64)).astype(np.float64)
    few -= 1e-3 * np.diag(few).mean() * np.eye(64)  # slightly indefinite, as rounding leaves it
    np.fill_diagonal(few, np.maximum(np.diag(few), 0))
    quantized = gptq(weight, INT4, few, percent_damp=0)
    assert output_error(weight, quantized, few) < output_error(
        weight, round_to_nearest(weight, INT4), few
    )


def test_weights_that_cannot_be_quantized_are_refused() -> None:
    weight = made_up(4, 32)
    weight[0, 0] = np.nan
    with pytest.raises(SchemeError, match="cannot be quantized"):
        gptq(weight, INT4, np.eye(32))
