"""What a written decoder package must pass before anyone uses it: read back, not remembered."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastvlm_compile.export.coreml.blobs import read_float_blob
from fastvlm_compile.export.coreml.canonical import read_spec, spec_path
from fastvlm_compile.export.coreml.check import check_norm_epsilons
from fastvlm_compile.export.coreml.language.interface import (
    DECODE,
    PREFILL,
    FunctionName,
    Tensor,
    interface,
    states,
)
from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig
from fastvlm_compile.export.errors import ExportError

if TYPE_CHECKING:
    from coremltools.proto.MIL_pb2 import Operation
    from coremltools.proto.Model_pb2 import FeatureDescription, FunctionDescription, Model

DECODER_OPS = frozenset(
    {
        "add",
        "cast",
        "concat",
        "const",
        "gather",
        "greater",
        "greater_equal",
        "layer_norm",
        "linear",
        "mul",
        "read_state",
        "reshape",
        "scaled_dot_product_attention",
        "select",
        "silu",
        "slice_by_index",
        "slice_update",
        "split",
        "sub",
        "transpose",
        "write_state",
    }
)
"""All that a decoder lowers to.

What is missing matters most: a square, root or division would be a norm written out in float16, a
softmax or matmul an attention written out, a tile or a stack a cache repeated for its queries.
"""


def check_chunk(package: Path, chunk: Chunk, config: DecoderConfig) -> None:
    """Functions, their inputs, outputs and states, the ops, and the weights.

    Raises:
        ExportError: one of them is otherwise; it is named.
    """
    spec = read_spec(package)
    described = {function.name: function for function in spec.description.functions}
    if described.keys() != {PREFILL, DECODE} or described.keys() != spec.mlProgram.functions.keys():
        raise ExportError(f"{package.name}: functions are {sorted(described)}")
    for name in (PREFILL, DECODE):
        where = f"{package.name}, {name}"
        _check_features(where, described[name], chunk, config, name)
        _check_ops(where, operations(spec, name), chunk)
    _check_weights(package, spec, chunk, config)
    check_norm_epsilons(package, config.text.rms_norm_eps)


def operations(spec: "Model", function: str) -> list["Operation"]:
    """The operations of one function of an ML Program."""
    blocks = spec.mlProgram.functions[function].block_specializations.values()
    return [operation for block in blocks for operation in block.operations]


def parameter_blobs(spec: "Model", function: str) -> dict[str, int]:
    """MIL name -> offset in `weight.bin`, of the weights that come from the checkpoint."""
    return {
        operation.outputs[0].name: operation.attributes["val"].blobFileValue.offset
        for operation in operations(spec, function)
        if operation.type == "const"
        and operation.attributes["val"].HasField("blobFileValue")
        and operation.outputs[0].name.startswith(("layers_", "norm_", "lm_head_"))
    }


def parameter_names(chunk: Chunk, config: DecoderConfig) -> dict[str, str]:
    """MIL name -> the module's own, which coremltools makes it of; `parameter_blobs` finds them."""
    import torch

    from fastvlm_compile.export.coreml.language.module import ChunkWeights

    with torch.device("meta"):
        names = ChunkWeights(chunk, config).state_dict()
    suffix = "_to_fp16" if config.precision == "float16" else ""
    return {name.replace(".", "_") + suffix: name for name in names}


def _check_features(
    where: str,
    described: "FunctionDescription",
    chunk: Chunk,
    config: DecoderConfig,
    name: FunctionName,
) -> None:
    promised = interface(chunk, config, name)
    for kind, found, expected in (
        ("inputs", described.input, promised.inputs),
        ("outputs", described.output, promised.outputs),
        ("states", described.state, states(chunk, config)),
    ):
        if (features := _features(found)) != [*expected]:
            raise ExportError(f"{where}: {kind} are {features}, not {list(expected)}")


def _features(described: Iterable["FeatureDescription"]) -> list[Tensor]:
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType

    names = {
        ArrayFeatureType.FLOAT16: "float16",
        ArrayFeatureType.FLOAT32: "float32",
        ArrayFeatureType.INT32: "int32",
    }
    found = []
    for feature in described:
        is_state = feature.type.HasField("stateType")
        array = feature.type.stateType.arrayType if is_state else feature.type.multiArrayType
        dtype = names.get(array.dataType, "another type")
        found.append(Tensor(name=feature.name, dtype=dtype, shape=tuple(array.shape)))
    return found


def _check_ops(where: str, found: list["Operation"], chunk: Chunk) -> None:
    kinds = [operation.type for operation in found]
    if unexpected := set(kinds) - DECODER_OPS:
        raise ExportError(f"{where}: unexpected ops {sorted(unexpected)}")
    num_layers = chunk.layers.count if chunk.layers is not None else 0
    num_norms = 2 * num_layers + (chunk.vocabulary is not None)
    for kind, expected in (
        ("scaled_dot_product_attention", num_layers),
        ("layer_norm", num_norms),
        ("slice_update", 2 * num_layers),
    ):
        if kinds.count(kind) != expected:
            raise ExportError(f"{where}: {kinds.count(kind)} of {kind}, expected {expected}")


def _check_weights(package: Path, spec: "Model", chunk: Chunk, config: DecoderConfig) -> None:
    """Stored once for both functions, of the precision asked for, and finite in it.

    coremltools keeps a layer in float32 without a word when a weight is past 65504, and such a
    layer leaves the Neural Engine.
    """
    weights = spec_path(package).parent / "weights" / "weight.bin"
    blobs = parameter_blobs(spec, DECODE)
    if blobs != parameter_blobs(spec, PREFILL):
        raise ExportError(f"{package.name}: the functions do not share their weights")
    if different := blobs.keys() ^ parameter_names(chunk, config).keys():
        raise ExportError(f"{package.name}: missing or unexpected weights {sorted(different)}")
    for name, offset in blobs.items():
        values = read_float_blob(weights, offset)
        if values.dtype != np.dtype(config.precision):
            raise ExportError(f"{package.name}: weight {name} is stored in {values.dtype}")
        if not np.isfinite(values).all():
            raise ExportError(f"{package.name}: weight {name} is not finite in {values.dtype}")
