"""Second moments of inputs are those of the formula, however the inputs arrive."""

import numpy as np
import pytest
import torch

from fastvlm_compile.quantize.hessians import InputMoments

ROWS = torch.randn(5000, 12, generator=torch.Generator().manual_seed(0)) * 3 + 1


def gathered(*, full: bool, pieces: int) -> InputMoments:
    moments = InputMoments(num_inputs=12, full=full)
    for piece in ROWS.chunk(pieces):
        moments.add(piece[None])
    return moments


@pytest.mark.parametrize("pieces", [1, 7, 500])
def test_the_hessian_is_the_mean_of_outer_products(pieces: int) -> None:
    x = ROWS.double().numpy()
    expected = x.T @ x / len(x)
    found = gathered(full=True, pieces=pieces).hessian()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # The sum instead of the mean, or a lost piece, would be far off.
    lost = x[10:].T @ x[10:] / len(x)
    assert not np.allclose(lost, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("full", [True, False])
def test_importance_is_its_diagonal(full: bool) -> None:
    expected = (ROWS.double() ** 2).mean(0).numpy()
    found = gathered(full=full, pieces=9).importance()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_large_mean_does_not_drown_small_inputs() -> None:
    moments = InputMoments(num_inputs=2, full=True)
    rows = torch.tensor([[1000.0, 1e-3]]).repeat(1000, 1)
    for _ in range(200):
        moments.add(rows)
    np.testing.assert_allclose(moments.hessian(), [[1e6, 1.0], [1.0, 1e-6]], rtol=1e-4)
    # What float32 alone would make of the sum of so many squares:
    naive = np.cumsum(np.full(200_000, 1e6, dtype=np.float32))[-1] / 200_000
    assert abs(naive - 1e6) > 1e2


def test_without_inputs_there_is_no_mean() -> None:
    with pytest.raises(AssertionError, match="no inputs"):
        InputMoments(num_inputs=2, full=False).importance()
    with pytest.raises(AssertionError, match="diagonal"):
        gathered(full=False, pieces=1).hessian()
