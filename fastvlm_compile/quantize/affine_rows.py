"""A weight as rows of blocks, on its way into the compiled kernels and out of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import torch

from fastvlm_compile.quantize.affine_kernels import HALF_MAX, Form, Single
from fastvlm_compile.quantize.scheme import Affine, SchemeError, Shape, check_scheme, code_range
from fastvlm_compile.quantize.tensor import Codes, Floats, QuantizedTensor

_CHUNK_VALUES = 2**18
"""Weights that a thread takes at a time: enough to be worth a call, few enough to share out."""


def as_rows(weight: Floats, scheme: Affine) -> Floats:
    """[O, I, ...] -> [O, F] in float32, checked; a kernel's positions lie beside each other.

    Raises:
        SchemeError: the scheme cannot hold the shape, or a value is not finite or too large.
    """
    check_scheme(scheme, weight.shape)
    rows = np.ascontiguousarray(weight, dtype=np.float32).reshape(weight.shape[0], -1)
    largest = max(float(rows.max()), -float(rows.min()))  # NaN stays NaN
    limit = HALF_MAX * (code_range(scheme.bits) // 2)
    if not largest <= limit:
        raise SchemeError(
            f"a weight of {largest:g} cannot be quantized: float16 scales of {scheme.bits}-bit "
            f"codes reach {limit:g}",
            hint="is the checkpoint damaged? keep the tensor in float32 if it is not",
        )
    return rows


def form_of(scheme: Affine, shape: Shape) -> Form:
    """What the kernels need to know of a scheme for a weight of this shape."""
    positions = prod(shape[2:])
    return Form(
        block=(scheme.block_size or shape[1]) * positions,
        top=Single(code_range(scheme.bits)),
        symmetric=scheme.symmetric,
        signed=scheme.symmetric and scheme.bits == 4,
    )


def spread_importance(importance: Floats | None, shape: Shape) -> Floats:
    """[I] -> [F], with mean 1; all 1 where none is given or none is above 0.

    Raises:
        SchemeError: it is negative or not finite.
    """
    positions = prod(shape[2:])
    if importance is None:
        return np.ones(shape[1] * positions, dtype=np.float32)
    assert importance.shape == (shape[1],), f"importance {importance.shape} of inputs {shape}"
    wide = importance.astype(np.float64)
    if not (np.isfinite(wide).all() and (wide >= 0).all()):
        raise SchemeError(
            "the importance of an input is negative or not finite",
            hint="the calibration activations are damaged or overflow",
        )
    mean = wide.mean()
    relative = wide / mean if mean > 0 else np.ones_like(wide)
    return np.repeat(relative, positions).astype(np.float32)


def over_rows(run: Callable[[slice], None], shape: Shape) -> None:
    """Call `run` on chunks of the rows of [O, F] in threads, as many as PyTorch has.

    A chunk's rows do not depend on the number of threads, nor may what `run` makes of them.
    """
    step = max(1, _CHUNK_VALUES // shape[1])
    chunks = [slice(start, start + step) for start in range(0, shape[0], step)]
    if len(chunks) == 1:
        run(chunks[0])
        return
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        list(pool.map(run, chunks))


def assemble(
    scheme: Affine, shape: Shape, codes: Codes, scales: Floats, zeros: Codes
) -> QuantizedTensor:
    """The tensor of what the kernels wrote: codes [O, F], scales and zero points [O, B]."""
    halves = scales.astype(np.float16)
    assert np.array_equal(halves.astype(np.float32), scales), "a scale that is no float16"
    return QuantizedTensor(
        scheme=scheme,
        codes=codes.reshape(shape),
        scales=halves,
        zero_points=np.empty(0, dtype=np.uint8) if scheme.symmetric else zeros,
        tables=np.empty(0, dtype=np.float16),
    )
