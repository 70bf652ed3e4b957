"""Attention of the decoder: the second seam, where GroupQueryAttention comes in.

Shape letters: B sequences, L new positions, P cached ones, T = P + L, G key-value heads, R query
heads per key-value head, E channels of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import onnx_ir as ir

from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.rotary import Rotary, look_up, rotate
from reference.config import Qwen2Config

MASKED_SCORE = -3.4028234663852886e38
"""Lowest float32. Finite, so that a padding query, which may look nowhere, gives no NaN."""


@dataclass(frozen=True, kw_only=True)
class DecoderInputs:
    """The graph's inputs that attention needs."""

    attention_mask: ir.Value
    position_ids: ir.Value
    first_past_key: ir.Value


@dataclass(frozen=True, kw_only=True)
class LayerCache:
    """Keys and values of one layer, [B, G, P, E] coming in and [B, G, T, E] going out."""

    key: ir.Value
    value: ir.Value


class AttentionEmitter(Protocol):
    """Writes one layer's attention between the input and output projections."""

    def __call__(
        self,
        graph: GraphBuilder,
        query: ir.Value,
        key: ir.Value | None,
        value: ir.Value | None,
        past: LayerCache,
    ) -> tuple[ir.Value, LayerCache]:
        """Query [B, L, G*R*E], key and value [B, L, G*E] -> mixed [B, L, G*R*E], new cache.

        Where the encoding joins the projections, the query holds all three, [B, L, (G*R + 2*G)*E].
        """
        ...


AttentionFactory = Callable[[GraphBuilder, DecoderInputs, Qwen2Config], AttentionEmitter]
"""Emits what all layers share (tables, masks), once, and returns the emitter of a layer."""


@dataclass(frozen=True, kw_only=True)
class PlainAttention:
    """Attention of MatMul and Softmax that never repeats the cache for the query heads.

    The R query heads of one key-value head become R * L rows of one matrix [B, G, R*L, E], so that
    keys and values are read once each; the mask is tiled to these rows once for all layers.
    """

    config: Qwen2Config
    rotary: Rotary
    mask: ir.Value
    """What to add to the scores, [B, 1, R*L, T]."""

    @classmethod
    def prepare(cls, graph: GraphBuilder, inputs: DecoderInputs, config: Qwen2Config) -> Self:
        """An `AttentionFactory`."""
        with graph.scope("rotary"):
            rotary = look_up(graph, inputs.position_ids, config)
        with graph.scope("mask"):
            repeats = config.num_attention_heads // config.num_key_value_heads
            mask = causal_mask(graph, inputs, repeats=repeats)
        return cls(config=config, rotary=rotary, mask=mask)

    def __call__(
        self,
        graph: GraphBuilder,
        query: ir.Value,
        key: ir.Value | None,
        value: ir.Value | None,
        past: LayerCache,
    ) -> tuple[ir.Value, LayerCache]:
        """Query [B, L, G*R*E], key and value [B, L, G*E] -> mixed [B, L, G*R*E], new cache."""
        assert key is not None, "plain attention takes the projections apart"
        assert value is not None, "plain attention takes the projections apart"
        config = self.config
        groups, width = config.num_key_value_heads, config.head_dim
        query = self._rotated_heads(graph, query, config.num_attention_heads)
        key = self._rotated_heads(graph, key, groups)
        value = split_heads(graph, value, groups, width)
        new = LayerCache(
            key=graph.op("Concat", past.key, key, axis=2),
            value=graph.op("Concat", past.value, value, axis=2),
        )
        scale = graph.float_scalar(width**-0.5, "attention_scale")
        rows = graph.op("Reshape", query, graph.ints(0, groups, -1, width))
        keys = graph.op("Transpose", new.key, perm=[0, 1, 3, 2])
        scores = graph.op("MatMul", graph.op("Mul", rows, scale), keys)
        weights = graph.op("Softmax", graph.op("Add", scores, self.mask), axis=-1)
        mixed = graph.op("MatMul", weights, new.value)
        heads = graph.op("Reshape", mixed, graph.ints(0, config.num_attention_heads, -1, width))
        tokens = graph.op("Transpose", heads, perm=[0, 2, 1, 3])
        return graph.op("Reshape", tokens, graph.ints(0, 0, -1)), new

    def _rotated_heads(self, graph: GraphBuilder, x: ir.Value, heads: int) -> ir.Value:
        width = self.config.head_dim
        return rotate(graph, split_heads(graph, x, heads, width), self.rotary, head_dim=width)


def split_heads(graph: GraphBuilder, x: ir.Value, heads: int, width: int) -> ir.Value:
    """[B, L, heads*E] -> [B, heads, L, E]."""
    split = graph.op("Reshape", x, graph.ints(0, 0, heads, width))
    return graph.op("Transpose", split, perm=[0, 2, 1, 3])


def causal_mask(graph: GraphBuilder, inputs: DecoderInputs, *, repeats: int) -> ir.Value:
    """What to add to the scores: 0 where a query may look, else `MASKED_SCORE`; [B, 1, R*L, T].

    A query sees the positions up to its own that `attention_mask` [B, T] counts.
    """
    past = graph.op("Shape", inputs.first_past_key, start=2, end=3)
    total = graph.op("Shape", inputs.attention_mask, start=1, end=2)
    zero, one = graph.int_scalar(0), graph.int_scalar(1)
    past_scalar, total_scalar = graph.op("Squeeze", past), graph.op("Squeeze", total)
    columns = graph.op("Range", zero, total_scalar, one)
    rows = graph.op("Range", past_scalar, total_scalar, one)
    causal = graph.op("LessOrEqual", columns, graph.op("Unsqueeze", rows, graph.ints(1)))
    counted = graph.op("Cast", inputs.attention_mask, to=ir.DataType.BOOL.value)
    allowed = graph.op("And", graph.op("Unsqueeze", counted, graph.ints(1, 2)), causal)
    mask = graph.op(
        "Where",
        allowed,
        graph.float_scalar(0.0, "zero"),
        graph.float_scalar(MASKED_SCORE, "masked_score"),
    )
    return graph.op("Tile", mask, graph.ints(1, 1, repeats, 1))
