"""Attention as one op of ONNX Runtime: GroupQueryAttention, with the rotary embedding inside.

The op concatenates the cache, rotates, masks and mixes in one kernel that never stores the scores
of all heads. What it cannot do (CPU kernel of 1.31, found by running it):

- Padding. It takes one length a row and counts positions from the first column, so a left-padded
  row attends to its padding and is rotated wrongly.
- Positions of its caller's. At prefill it looks at the first of `position_ids` alone.
- Several new positions on top of a cache with more than one row; it refuses these itself.

A graph that gave a wrong answer to the first two would be worse than none, so `prepare` makes them
an error: see `_require_dense`. Shape letters: B sequences, L new positions, P cached ones, T = P +
L, G key-value heads, R query heads a key-value head, E channels of a head.
"""

from dataclasses import dataclass
from typing import Self

import onnx_ir as ir

from fastvlm_compile.export.errors import UnsupportedExportError
from fastvlm_compile.export.onnx.attention import DecoderInputs, LayerCache
from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.residual import MICROSOFT
from fastvlm_compile.export.onnx.rotary import rotary_tables
from reference.config import Qwen2Config

HEAD_DIM_MULTIPLE = 16
"""What the op demands of the width of a rotated head."""

DENSE_SCOPE = "requires_no_padding_and_positions_in_order"
"""Names the nodes of the guard, so that the runtime's error says what it wants."""


@dataclass(frozen=True, kw_only=True)
class GroupQueryAttention:
    """One op a layer over values that all layers share."""

    config: Qwen2Config
    seqlens: ir.Value
    """Positions before a row's last, T - 1, int32 [B]."""
    total: ir.Value
    """T, int32 []."""
    cos: ir.Value
    sin: ir.Value
    """Tables of all positions, [max_position_embeddings, E/2]."""

    @classmethod
    def prepare(cls, graph: GraphBuilder, inputs: DecoderInputs, config: Qwen2Config) -> Self:
        """An `AttentionFactory`.

        Raises:
            UnsupportedExportError: the heads have a width that the op refuses.
        """
        if config.head_dim % HEAD_DIM_MULTIPLE != 0:
            raise UnsupportedExportError(
                f"GroupQueryAttention cannot rotate heads {config.head_dim} channels wide",
                hint=f"it wants a multiple of {HEAD_DIM_MULTIPLE}; export the float32 variant",
            )
        cos, sin = rotary_tables(config)
        with graph.scope("lengths"):
            lengths = graph.op("ReduceSum", inputs.attention_mask, graph.ints(1), keepdims=0)
            with graph.scope(DENSE_SCOPE):
                zero = _require_dense(graph, inputs, lengths)
            seqlens = graph.op("Sub", lengths, graph.int_scalar(1))
            width = graph.op("Shape", inputs.attention_mask, start=1, end=2)
            total = graph.op("Add", graph.op("Squeeze", width), zero)
            int32 = ir.DataType.INT32.value
            return cls(
                config=config,
                seqlens=graph.op("Cast", seqlens, to=int32),
                total=graph.op("Cast", total, to=int32),
                cos=graph.initializer(cos),
                sin=graph.initializer(sin),
            )

    def __call__(
        self,
        graph: GraphBuilder,
        query: ir.Value,
        key: ir.Value | None,
        value: ir.Value | None,
        past: LayerCache,
    ) -> tuple[ir.Value, LayerCache]:
        """Query [B, L, G*R*E], key and value [B, L, G*E] -> mixed [B, L, G*R*E], new cache.

        Without key and value the query holds all three, [B, L, (G*R + 2*G)*E].
        """
        mixed, new_key, new_value = graph.multi_op(
            "GroupQueryAttention",
            query,
            key,
            value,
            past.key,
            past.value,
            self.seqlens,
            self.total,
            self.cos,
            self.sin,
            num_outputs=3,
            domain=MICROSOFT,
            num_heads=self.config.num_attention_heads,
            kv_num_heads=self.config.num_key_value_heads,
            do_rotary=1,
        )
        return mixed, LayerCache(key=new_key, value=new_value)


def _require_dense(graph: GraphBuilder, inputs: DecoderInputs, lengths: ir.Value) -> ir.Value:
    """A zero that cannot be computed where the op would answer wrongly.

    Counted are the mask's zeros and how far `position_ids` [B, L] are from P, P + 1, ...; Gather
    from a table of one zero refuses any other index than 0 (and -1, which no sum of this is).
    """
    width = graph.op("Shape", inputs.attention_mask, start=1, end=2)
    past = graph.op("Shape", inputs.first_past_key, start=2, end=3)
    positions = graph.op(
        "Range", graph.op("Squeeze", past), graph.op("Squeeze", width), graph.int_scalar(1)
    )
    moved = graph.op("Abs", graph.op("Sub", inputs.position_ids, positions))
    masked = graph.op("Abs", graph.op("Sub", width, lengths))
    strays = graph.op(
        "Add",
        graph.op("ReduceSum", moved, keepdims=0),
        graph.op("ReduceSum", masked, keepdims=0),
    )
    return graph.op("Gather", graph.ints(0), strays, axis=0)
