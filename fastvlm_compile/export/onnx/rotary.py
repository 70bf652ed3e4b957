"""Rotary position embedding (arXiv 2104.09864) from tables of every position the model knows.

The angles come from a table and not from Cos and Sin nodes: at position 8000 an angle is thousands
of radians, and a runtime's cosine of it may be a phone's or a browser's half-accurate one. A
position past the table is an error of the runtime, never a wrong answer.
"""

from dataclasses import dataclass

import onnx_ir as ir
import torch

from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.weights import StreamedTensor
from reference.config import Qwen2Config
from reference.qwen2 import rotary_embedding

COS_TABLE = "rotary.cos"
SIN_TABLE = "rotary.sin"


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Cosines [B, 1, L, E] and sines, the first half of these negated, of the new positions."""

    cos: ir.Value
    signed_sin: ir.Value


def rotary_tables(config: Qwen2Config) -> tuple[StreamedTensor, StreamedTensor]:
    """Cosines and sines [max_position_embeddings, E/2], computed as by the reference."""
    half = config.head_dim // 2
    length = config.max_position_embeddings

    def table(which: int) -> torch.Tensor:
        both = rotary_embedding(torch.arange(length)[None, :], config)
        return both[which][0, 0, :, :half]

    return (
        StreamedTensor(COS_TABLE, (length, half), lambda: table(0)),
        StreamedTensor(SIN_TABLE, (length, half), lambda: table(1)),
    )


def look_up(graph: GraphBuilder, position_ids: ir.Value, config: Qwen2Config) -> Rotary:
    """Emit what all layers share: the rows of the tables for `position_ids` [B, L]."""
    cos_table, sin_table = rotary_tables(config)
    cos = graph.op("Gather", graph.initializer(cos_table), position_ids, axis=0)
    sin = graph.op("Gather", graph.initializer(sin_table), position_ids, axis=0)
    wide_cos = graph.op("Concat", cos, cos, axis=-1)
    wide_sin = graph.op("Concat", graph.op("Neg", sin), sin, axis=-1)
    heads_axis = graph.ints(1)
    return Rotary(
        cos=graph.op("Unsqueeze", wide_cos, heads_axis),
        signed_sin=graph.op("Unsqueeze", wide_sin, heads_axis),
    )


def rotate(graph: GraphBuilder, x: ir.Value, rotary: Rotary, *, head_dim: int) -> ir.Value:
    """Rotate the channel pairs (i, i + E/2) of x [B, heads, L, E].

    x * cos + swap(x) * signed_sin, where swap exchanges the two halves.
    """
    half = head_dim // 2
    first, second = graph.multi_op("Split", x, graph.ints(half, half), num_outputs=2, axis=-1)
    swapped = graph.op("Concat", second, first, axis=-1)
    return graph.op(
        "Add", graph.op("Mul", x, rotary.cos), graph.op("Mul", swapped, rotary.signed_sin)
    )
