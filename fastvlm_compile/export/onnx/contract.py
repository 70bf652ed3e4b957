"""The inputs and outputs that the consumers of a bundle rely on, as data, and their check.

Source: transformers.js 4.x and onnxruntime-genai 0.18. The batch symbol must be called
`batch_size`; transformers.js sets any other symbol of a cache input to 0, so heads and head width
are integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from fastvlm_compile.export.errors import ExportError
from reference.config import Qwen2Config, VisionConfig

BATCH = "batch_size"
LENGTH = "sequence_length"
PAST = "past_sequence_length"
TOTAL = "total_sequence_length"

ElementType = Literal["float32", "int64"]

_ONNX_TYPES: dict[ElementType, int] = {
    "float32": onnx.TensorProto.FLOAT,
    "int64": onnx.TensorProto.INT64,
}


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output; a string in the shape is a symbol."""

    name: str
    dtype: ElementType
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class GraphContract:
    """All inputs and outputs of a graph, in order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def vision_contract(vision: VisionConfig, hidden_size: int) -> GraphContract:
    """`vision_encoder`: image to language embeddings, the projector included."""
    size = vision.image_size
    features = (BATCH, vision.num_tokens, hidden_size)
    return GraphContract(
        inputs=(Port(name="pixel_values", dtype="float32", shape=(BATCH, 3, size, size)),),
        outputs=(Port(name="image_features", dtype="float32", shape=features),),
    )


def embedding_contract(hidden_size: int) -> GraphContract:
    """`embed_tokens`: token ids to embeddings."""
    embeds = (BATCH, LENGTH, hidden_size)
    return GraphContract(
        inputs=(Port(name="input_ids", dtype="int64", shape=(BATCH, LENGTH)),),
        outputs=(Port(name="inputs_embeds", dtype="float32", shape=embeds),),
    )


def decoder_contract(text: Qwen2Config, *, last_only: bool) -> GraphContract:
    """`decoder_model_merged`: every declared input must be supplied, so there are no others."""
    embeds = (BATCH, LENGTH, text.hidden_size)
    logits = (BATCH, 1 if last_only else LENGTH, text.vocab_size)
    return GraphContract(
        inputs=(
            Port(name="inputs_embeds", dtype="float32", shape=embeds),
            Port(name="attention_mask", dtype="int64", shape=(BATCH, TOTAL)),
            Port(name="position_ids", dtype="int64", shape=(BATCH, LENGTH)),
            *_cache_ports(text, "past_key_values", PAST),
        ),
        outputs=(
            Port(name="logits", dtype="float32", shape=logits),
            *_cache_ports(text, "present", TOTAL),
        ),
    )


def _cache_ports(text: Qwen2Config, stem: str, length: str) -> list[Port]:
    shape = (BATCH, text.num_key_value_heads, length, text.head_dim)
    return [
        Port(name=f"{stem}.{layer}.{part}", dtype="float32", shape=shape)
        for layer in range(text.num_hidden_layers)
        for part in ("key", "value")
    ]


def check_contract(path: Path, contract: GraphContract) -> None:
    """Compare the file's declared inputs and outputs with the contract.

    Raises:
        ExportError: they differ in number, order, name, type or shape.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    _check_ports(path, "inputs", graph.input, contract.inputs)
    _check_ports(path, "outputs", graph.output, contract.outputs)


def _check_ports(
    path: Path, kind: str, found: Sequence[onnx.ValueInfoProto], expected: Sequence[Port]
) -> None:
    described = [_describe(value) for value in found]
    wanted = [f"{port.name}: {_ONNX_TYPES[port.dtype]} {list(port.shape)}" for port in expected]
    if described != wanted:
        differences = sorted(set(described) ^ set(wanted))
        raise ExportError(f"{path.name}: {kind} differ from the contract: {differences}")


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    return f"{value.name}: {tensor.elem_type} {shape}"
