"""What quantization is computed from must not depend on the machine's number of cores."""

import os
import subprocess
import sys

import numpy as np
import pytest

from fastvlm_compile.quantize.products import cholesky, product

_PROGRAM = """
import hashlib
import numpy as np
import torch
from fastvlm_compile.quantize.gptq import gptq
from fastvlm_compile.quantize.hessians import InputMoments
from fastvlm_compile.quantize.scheme import Affine

torch.set_num_threads(THREADS)
random = np.random.default_rng(0)
digest = hashlib.sha256()
for outputs, inputs, rows in ((256, 320, 2500), (64, 1024, 300)):
    weight = random.standard_normal((outputs, inputs), dtype=np.float32)
    x = random.standard_normal((rows, inputs), dtype=np.float32).cumsum(axis=1) * 0.1
    moments = InputMoments(num_inputs=inputs, full=True)
    moments.add(torch.from_numpy(x))
    found = gptq(weight, Affine(bits=4, block_size=32, symmetric=False), moments.second_moments())
    for part in (found.codes, found.scales, found.effective_zero_points()):
        digest.update(np.ascontiguousarray(part).tobytes())
print(digest.hexdigest())
"""


def _digest_with(threads: int) -> str:
    program = _PROGRAM.replace("THREADS", str(threads))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **dict.fromkeys(names, str(threads))},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout


def test_one_thread_or_two_give_the_same_codes_and_scales() -> None:
    assert _digest_with(1) == _digest_with(2)


@pytest.mark.parametrize("size", [1, 127, 128, 300, 513])
def test_the_factor_times_itself_is_the_matrix(size: int) -> None:
    random = np.random.default_rng(size)
    rows = random.standard_normal((2 * size, size))
    matrix = rows.T @ rows + 0.1 * np.eye(size)
    factor = cholesky(matrix.copy())
    assert np.array_equal(factor, np.tril(factor))
    np.testing.assert_allclose(factor @ factor.T, matrix, rtol=1e-10, atol=1e-10 * size)


@pytest.mark.parametrize("column", [0, 200, 299])
def test_a_matrix_with_a_negative_eigenvalue_is_refused(column: int) -> None:
    matrix = np.eye(300)
    matrix[column, column] = -1
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        cholesky(matrix)


def test_a_product_takes_rows_with_a_stride() -> None:
    random = np.random.default_rng(0)
    left, right = random.standard_normal((5, 8)), random.standard_normal((9, 6))
    found = product(left[:, 1:6], right[2:7, ::2])
    np.testing.assert_allclose(found, left[:, 1:6] @ right[2:7, ::2])
