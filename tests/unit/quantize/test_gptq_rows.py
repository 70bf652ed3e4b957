"""Few inputs are kept as they are, and rounded by as their second moments would be."""

import numpy as np
import pytest
import torch

from fastvlm_compile.quantize.gptq import HessianError, gptq
from fastvlm_compile.quantize.gptq_factors import check
from fastvlm_compile.quantize.gptq_rows import InputRows, check_rows
from fastvlm_compile.quantize.hessians import InputMoments
from fastvlm_compile.quantize.scheme import Affine

NUM_ROWS, SIZE = 133, 400
"""No multiple of the chunk of 128 columns."""


def inputs(seed: int = 0) -> np.ndarray:
    """Correlated, with outliers, one input that is always 0."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((NUM_ROWS, SIZE // 4)) @ rng.standard_normal((SIZE // 4, SIZE))
    x: np.ndarray = (mixed * np.exp(1.5 * rng.standard_normal(SIZE))).astype(np.float32)
    x[:, 17] = 0
    return x


def both(x: np.ndarray) -> tuple[np.ndarray, InputRows]:
    wide = x.astype(np.float64)
    return wide.T @ wide / len(x), InputRows(rows=(x / len(x) ** 0.5).astype(np.float32))


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_its_products_and_its_factor_are_those_of_the_matrix() -> None:
    hessian, few = both(inputs())
    of_matrix, of_rows = check(hessian, SIZE), check_rows(few, SIZE)
    close(of_rows.diagonal, of_matrix.diagonal)
    order = np.argsort(-of_matrix.diagonal, kind="stable")
    matrix, rows = of_matrix.curvature(order, 0.01), of_rows.curvature(order, 0.01)
    errors = np.random.default_rng(1).standard_normal((50, SIZE)).astype(np.float32)
    close(rows.slope(errors).row_errors(), matrix.slope(errors).row_errors())
    near, far = slice(100, 180), slice(60, 300)
    close(rows.part(near, far), matrix.part(near, far))
    for taken in (near, far):
        close(
            rows.times(errors[:, taken], taken, slice(10, 250)),
            matrix.times(errors[:, taken], taken, slice(10, 250)),
        )
    given, expected = rows.feedback(), matrix.feedback()
    for start in range(0, SIZE, 128):
        columns = slice(start, min(start + 128, SIZE))
        close(given.pull(errors, columns), expected.pull(errors, columns))
        close(np.triu(given.inside(columns), 1), np.triu(expected.inside(columns), 1))
    back = np.argsort(order)
    slope = given.slope(errors[:, back])
    close(slope.at(slice(0, SIZE)), matrix.slope(errors[:, back]).at(slice(0, SIZE)))


def test_a_slope_follows_what_changes() -> None:
    _, few = both(inputs())
    curvature = check_rows(few, SIZE).curvature(np.arange(SIZE), 0.01)
    errors = np.random.default_rng(1).standard_normal((50, SIZE)).astype(np.float32)
    slope = curvature.slope(errors)
    change = np.full((50, 30), 0.5, dtype=np.float32)
    errors[:, 40:70] += change
    slope.changed(slice(40, 70), change)
    close(slope.at(slice(0, SIZE)), curvature.slope(errors).at(slice(0, SIZE)))


def test_a_slope_takes_rows_of_another() -> None:
    _, few = both(inputs())
    curvature = check_rows(few, SIZE).curvature(np.arange(SIZE), 0.01)
    rng = np.random.default_rng(1)
    errors, others = rng.standard_normal((2, 50, SIZE)).astype(np.float32)
    slope, rows = curvature.slope(errors), np.arange(50) % 3 == 0
    slope.take(rows, curvature.slope(others))
    errors[rows] = others[rows]
    close(slope.row_errors(), curvature.slope(errors).row_errors())


@pytest.mark.parametrize("block_size", [0, 32, 128])
def test_codes_are_those_of_the_matrix(block_size: int) -> None:
    hessian, few = both(inputs())
    weight = (np.random.default_rng(2).standard_normal((60, SIZE)) * 0.02).astype(np.float32)
    scheme = Affine(bits=4, block_size=block_size, symmetric=True)
    expected, found = gptq(weight, scheme, hessian), gptq(weight, scheme, few)
    assert (found.codes == expected.codes).mean() > 0.995  # rounded ties may fall otherwise
    other = gptq(weight, scheme, both(inputs(seed=5))[1])
    assert (other.codes == expected.codes).mean() < 0.9


def test_without_damping_there_is_some() -> None:
    hessian, few = both(inputs())
    weight = (np.random.default_rng(2).standard_normal((20, SIZE)) * 0.02).astype(np.float32)
    scheme = Affine(bits=4, block_size=32, symmetric=True)
    found = gptq(weight, scheme, few, percent_damp=0)
    error = weight - found.dequantize().astype(np.float64)
    plain = weight - gptq(weight, scheme, np.eye(SIZE)).dequantize().astype(np.float64)
    assert np.trace(error @ hessian @ error.T) < np.trace(plain @ hessian @ plain.T)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused(bad: float) -> None:
    x = inputs()
    x[3, 5] = bad
    with pytest.raises(HessianError, match="not finite"):
        gptq(
            np.ones((4, SIZE), dtype=np.float32),
            Affine(bits=4, block_size=32, symmetric=True),
            InputRows(rows=x),
        )


@pytest.mark.parametrize("pieces", [1, 5])
def test_gathered_inputs_are_kept_while_they_are_few(pieces: int) -> None:
    x = torch.from_numpy(inputs())
    gathered = InputMoments(num_inputs=SIZE, full=True)
    for piece in x.chunk(pieces):
        gathered.add(piece)
    few = gathered.second_moments()
    assert isinstance(few, InputRows)
    np.testing.assert_allclose(few.rows.T @ few.rows, gathered.hessian(), rtol=1e-3, atol=1e-4)

    gathered = InputMoments(num_inputs=SIZE, full=True)
    gathered.add(x)
    importance = gathered.importance()
    gathered.add(x)
    moments = gathered.second_moments()
    assert isinstance(moments, np.ndarray), "266 inputs of 400 are not few"
    np.testing.assert_allclose(np.diag(moments), importance, rtol=1e-5)
