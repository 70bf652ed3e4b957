"""Products and factors of matrices that come out the same, to the bit, on one core or on many.

numpy's BLAS sums a product in another order when it has another number of threads, and LAPACK's
Cholesky does so in every library; a last bit can turn a code, and all that follow in its row. The
products that PyTorch computes by MKL do not (`test_quantize_products.py` holds them to it).
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

Real = TypeVar("Real", np.float32, np.float64)

_BLOCK = 128
"""Columns of a factor at once; LAPACK takes so few on one thread."""


def product(left: npt.NDArray[Real], right: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """[M, K] times [K, N]; both of one type, rows in any stride."""
    result: npt.NDArray[Real] = (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()
    return result


def add_product(
    total: npt.NDArray[Real], left: npt.NDArray[Real], right: npt.NDArray[Real]
) -> None:
    """Add [M, K] times [K, N] to `total` [M, N], without a copy of it."""
    torch.from_numpy(total).addmm_(torch.from_numpy(left), torch.from_numpy(right))


def cholesky(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Lower triangular L [F, F] with L L^T = `matrix`, block column by block column.

    Args:
        matrix: symmetric, overwritten.

    Raises:
        numpy.linalg.LinAlgError: it is not positive definite.
    """
    factor = torch.from_numpy(matrix)
    size = len(factor)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        done, below = factor[start:, :start], factor[stop:, start:stop]
        factor[start:, start:stop] -= done @ factor[start:stop, :start].T
        corner, failed = torch.linalg.cholesky_ex(factor[start:stop, start:stop])
        if failed:
            raise np.linalg.LinAlgError(f"not positive definite in column {start + int(failed)}")
        factor[start:stop, start:stop] = corner
        below[:] = torch.linalg.solve_triangular(corner.T, below, upper=True, left=False)
        factor[start:stop, stop:] = 0
    return matrix


def solve_upper(
    factor: npt.NDArray[np.float64], right: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The X [F, N] with factor X = right, for an upper triangular factor [F, F]."""
    upper, given = torch.from_numpy(np.ascontiguousarray(factor)), torch.from_numpy(right)
    result: npt.NDArray[np.float64] = torch.linalg.solve_triangular(
        upper, given, upper=True
    ).numpy()
    return result
