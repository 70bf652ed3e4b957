"""coremltools' k-means palettization of one matrix: a package of a single linear layer."""

import contextlib
import io
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvlm_compile.quantize.scheme import Palette
from fastvlm_compile.quantize.tensor import Floats


@dataclass(frozen=True, kw_only=True)
class Palettized:
    """What became of a matrix.

    Attributes:
        weight: dequantized, [O, I].
        wall_s: of `palettize_weights`.
        cpu_s: processor time of it.
        overhead_s: wall time of `palettize_weights` when it may palettize nothing.
    """

    weight: Floats
    wall_s: float
    cpu_s: float
    overhead_s: float


def palettize(weight: Floats, scheme: Palette) -> Palettized:
    """`coremltools.optimize.coreml.palettize_weights` with k-means on a float16 package.

    Args:
        weight: [O, I], float16 values.
        scheme: bits and group; in one process, as its pool of workers fails when used twice.
    """
    with _quietly():
        model = _package(weight)
        started_s = time.perf_counter()
        _run(model, scheme, weight_threshold=weight.size + 1)
        overhead_s = time.perf_counter() - started_s
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        compressed = _run(model, scheme, weight_threshold=0)
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
        main = compressed._mil_program.functions["main"]
    (op,) = main.find_ops(op_type="constexpr_lut_to_dense")
    tables, indices = op.lut.val, op.indices.val
    groups = tables.shape[0]
    assert tables.shape == (scheme.num_groups(weight.shape), 1, 2**scheme.bits, 1)
    values = np.take_along_axis(
        tables.reshape(groups, -1), indices.reshape(groups, -1).astype(np.intp), axis=1
    )
    return Palettized(
        weight=values.reshape(weight.shape).astype(np.float32),
        wall_s=wall_s,
        cpu_s=cpu_s,
        overhead_s=overhead_s,
    )


def _package(weight: Floats) -> Any:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813 - coremltools' own idiom
    from coremltools.converters.mil.mil import types

    halves = weight.astype(np.float16)
    assert np.array_equal(halves, weight), "not float16 values"
    spec = mb.TensorSpec(shape=(1, weight.shape[1]), dtype=types.fp16)

    def linear(x: Any) -> Any:
        return mb.linear(x=x, weight=halves)

    return ct.convert(
        mb.program(input_specs=[spec], opset_version=ct.target.iOS18)(linear),
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )


def _run(model: Any, scheme: Palette, *, weight_threshold: int) -> Any:
    import coremltools.optimize.coreml as cto

    grouped = {"granularity": "per_grouped_channel", "group_size": scheme.group_size}
    config = cto.OpPalettizerConfig(
        mode="kmeans",
        nbits=scheme.bits,
        weight_threshold=weight_threshold,
        **(grouped if scheme.group_size else {"granularity": "per_tensor"}),
    )
    return cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without its progress bars, and what it says of proxies that Linux lacks."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
