"""One chunk as one package of two functions.

Each function is traced and converted by itself; then both are merged, and a weight that both hold
is stored once. The trace writes the cache through a slice that starts at an input, which
`torch.export` does not take.
"""

import gc
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastvlm_compile.export.coreml.canonical import canonicalise, read_spec, spec_path
from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.export.coreml.convert import DEPLOYMENT_TARGET
from fastvlm_compile.export.coreml.language.describe import describe_function, describe_package
from fastvlm_compile.export.coreml.language.interface import (
    DECODE,
    PREFILL,
    FunctionName,
    Interface,
    Tensor,
    interface,
    states,
)
from fastvlm_compile.export.coreml.language.module import ChunkFunction, load_weights
from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig
from fastvlm_compile.export.coreml.merge import merge
from fastvlm_compile.export.coreml.naming import count_names_from_zero
from fastvlm_compile.export.coreml.quiet import quiet_coremltools
from fastvlm_compile.export.weight_source import WeightSource

if TYPE_CHECKING:
    from coremltools.models import MLModel

FUNCTIONS: tuple[FunctionName, ...] = (PREFILL, DECODE)


def write_chunk(chunk: Chunk, config: DecoderConfig, source: WeightSource, package: Path) -> None:
    """Write the package of one chunk, in canonical form.

    What it holds in memory follows from the chunk, not from the model.

    Args:
        chunk, config: which part of which decoder.
        source: the weights; only the chunk's are read.
        package: where to; its folder also holds the functions for a while.
    """
    with tempfile.TemporaryDirectory(dir=package.parent) as folder:
        parts: dict[str, Path] = {}
        weights = load_weights(chunk, config, source, Path(folder) / "weights")
        for name in FUNCTIONS:
            module = ChunkFunction(weights, chunk, config, name).eval()
            model = convert_function(module, chunk, config, name)
            describe_function(model, chunk, config, name)
            parts[name] = Path(folder) / f"{name}.mlpackage"
            with quiet_coremltools():
                model.save(str(parts[name]))
            del module, model
            gc.collect()  # the converter's programs refer to themselves in circles
        del weights
        merge(parts, package, default=DECODE)  # which is called most
    spec = read_spec(package)
    describe_package(spec, chunk, config)
    spec_path(package).write_bytes(spec.SerializeToString())
    canonicalise(package)


def convert_function(
    module: ChunkFunction, chunk: Chunk, config: DecoderConfig, function: FunctionName
) -> "MLModel":
    """A package of the one function, called `main` in it; not saved, and nowhere compiled."""
    promised = interface(chunk, config, function)
    with quiet_coremltools(), torch.no_grad():
        import coremltools as ct

        from fastvlm_compile.export.coreml.half_precision import with_lean_cast

        example = _example(promised)
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]  # torch does not type it
            module, example, check_trace=False
        )
        count_names_from_zero()
        return ct.convert(
            traced,
            inputs=[_tensor_type(tensor) for tensor in promised.inputs],
            outputs=[
                ct.TensorType(output.name, dtype=np.dtype(output.dtype).type)
                for output in promised.outputs
            ],
            states=[
                ct.StateType(
                    ct.TensorType(shape=state.shape, dtype=np.dtype(state.dtype).type),
                    name=state.name,
                )
                for state in states(chunk, config)
            ],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, DEPLOYMENT_TARGET),
            compute_precision=_precision(config.precision),
            pass_pipeline=with_lean_cast(ct.PassPipeline(), config.precision),
            skip_model_load=True,
        )


def _example(promised: Interface) -> tuple[torch.Tensor, ...]:
    """Inputs to trace with; nothing of their values stays in the graph."""
    return tuple(
        torch.ones(tensor.shape, dtype=torch.int32 if tensor.dtype == "int32" else torch.float32)
        for tensor in promised.inputs
    )


def _tensor_type(tensor: Tensor) -> object:
    import coremltools as ct

    return ct.TensorType(tensor.name, shape=tensor.shape, dtype=np.dtype(tensor.dtype).type)


def _precision(precision: Precision) -> object:
    import coremltools as ct

    return getattr(ct.precision, precision.upper())
