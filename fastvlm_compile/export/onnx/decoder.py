"""`decoder_model_merged`: embeddings and a cache in, logits and the longer cache out.

Written down node by node from the config; weights are bound by name and stay on disk until the
graph is written. Prefill and decoding are one graph: a cache of length 0 is a prefill.

Shape letters: B sequences, L new positions, P cached ones, D the hidden size, V the vocabulary, G
key-value heads, E channels of a head.
"""

from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from fastvlm_compile.export.onnx.attention import (
    AttentionEmitter,
    AttentionFactory,
    DecoderInputs,
    LayerCache,
    PlainAttention,
)
from fastvlm_compile.export.onnx.contract import BATCH, LENGTH, PAST, TOTAL
from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.linear import (
    LinearEmitter,
    LinearJoiner,
    LinearSpec,
    PlainLinear,
    never_join,
)
from fastvlm_compile.export.onnx.mlp import gated_mlp
from fastvlm_compile.export.onnx.residual import PlainResidual, ResidualEmitter, Stream
from fastvlm_compile.export.onnx.weights import stored
from fastvlm_compile.export.weight_source import WeightSource
from reference.config import Qwen2Config

Logits = Literal["last", "full"]

DECODER = "decoder_model_merged"
EMBEDDING_WEIGHT = "model.embed_tokens.weight"
HEAD_WEIGHT = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class DecoderGraphConfig:
    """What decides the structure of a decoder graph."""

    text: Qwen2Config
    tied: bool
    """The head is the embedding (what the tensors say, not the config)."""
    logits: Logits
    """`last` computes the logits of the last position alone, [B, 1, V]; `full` all of them."""
    opset: int


@dataclass(frozen=True, kw_only=True)
class DecoderEncoding:
    """How the parts are written that have more than one form."""

    source: WeightSource
    """Norm weights, and whatever `linear` reads itself."""
    linear: LinearEmitter
    attention: AttentionFactory
    residual: ResidualEmitter = field(default_factory=PlainResidual)
    join_attention: LinearJoiner = never_join
    """Of the query, key and value projections, for an `attention` that takes them joined."""
    join_mlp: LinearJoiner = never_join
    """Of the gate and up projections."""

    @classmethod
    def plain(cls, source: WeightSource) -> "DecoderEncoding":
        """Standard ops in float32, which every runtime loads."""
        return cls(
            source=source, linear=PlainLinear(source=source), attention=PlainAttention.prepare
        )


def build_decoder(config: DecoderGraphConfig, encoding: DecoderEncoding) -> ir.Model:
    """The whole graph, weights unread."""
    graph = GraphBuilder(DECODER, opset=config.opset)
    text = config.text
    x = graph.input("inputs_embeds", ir.DataType.FLOAT, (BATCH, LENGTH, text.hidden_size))
    attention_mask = graph.input("attention_mask", ir.DataType.INT64, (BATCH, TOTAL))
    position_ids = graph.input("position_ids", ir.DataType.INT64, (BATCH, LENGTH))
    pasts = [_cache_inputs(graph, text, layer) for layer in range(text.num_hidden_layers)]
    inputs = DecoderInputs(
        attention_mask=attention_mask,
        position_ids=position_ids,
        first_past_key=pasts[0].key,
    )
    attention = encoding.attention(graph, inputs, text)
    presents: list[LayerCache] = []
    stream = Stream(value=x)
    for index, past in enumerate(pasts):
        with graph.scope(f"layers.{index}"):
            stream, present = decoder_layer(
                graph, stream, past, index=index, text=text, encoding=encoding, attention=attention
            )
        presents.append(present)
    logits = _head(graph, stream, config, encoding)
    length = 1 if config.logits == "last" else LENGTH
    graph.output(logits, "logits", ir.DataType.FLOAT, (BATCH, length, text.vocab_size))
    for index, present in enumerate(presents):
        _cache_outputs(graph, text, index, present)
    return graph.model()


def decoder_layer(
    graph: GraphBuilder,
    stream: Stream,
    past: LayerCache,
    *,
    index: int,
    text: Qwen2Config,
    encoding: DecoderEncoding,
    attention: AttentionEmitter,
) -> tuple[Stream, LayerCache]:
    """Attention and feed-forward, each behind an RMSNorm and a residual: [B, L, D] -> same."""
    prefix, residual = f"model.layers.{index}", encoding.residual

    def norm(stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        weight = graph.initializer(stored(encoding.source, f"{prefix}.{name}.weight"))
        with graph.scope(name):
            return residual.norm(graph, stream, weight, eps=text.rms_norm_eps)

    normed, stream = norm(stream, "input_layernorm")
    with graph.scope("self_attn"):
        mixed, present = self_attention(
            graph, normed, past, prefix=f"{prefix}.self_attn", encoding=encoding, mix=attention
        )
    stream = residual.add(graph, stream, mixed)
    normed, stream = norm(stream, "post_attention_layernorm")
    with graph.scope("mlp"):
        fed = gated_mlp(
            graph,
            normed,
            prefix=f"{prefix}.mlp",
            width=text.intermediate_size,
            linear=encoding.linear,
            join=encoding.join_mlp,
        )
    return residual.add(graph, stream, fed), present


def self_attention(
    graph: GraphBuilder,
    x: ir.Value,
    past: LayerCache,
    *,
    prefix: str,
    encoding: DecoderEncoding,
    mix: AttentionEmitter,
) -> tuple[ir.Value, LayerCache]:
    """The four projections around `mix`: [B, L, D] -> [B, L, D] and the new cache."""

    def spec(layer: str, *, bias: bool) -> LinearSpec:
        name = f"{prefix}.{layer}"
        return LinearSpec(name=name, weight=f"{name}.weight", bias=f"{name}.bias" if bias else None)

    def project(linear: LinearSpec, value: ir.Value) -> ir.Value:
        with graph.scope(linear.name.removeprefix(f"{prefix}.")):
            return encoding.linear(graph, value, linear)

    parts = [spec(part, bias=True) for part in ("q_proj", "k_proj", "v_proj")]
    with graph.scope("qkv_proj"):
        joined = encoding.join_attention(graph, x, f"{prefix}.qkv_proj", parts)
    if joined is not None:
        mixed, present = mix(graph, joined, None, None, past)
    else:
        query, key, value = (project(part, x) for part in parts)
        mixed, present = mix(graph, query, key, value, past)
    return project(spec("o_proj", bias=False), mixed), present


def _head(
    graph: GraphBuilder, stream: Stream, config: DecoderGraphConfig, encoding: DecoderEncoding
) -> ir.Value:
    """Final norm and output projection, of the last position alone where that is asked for."""
    if config.logits == "last":
        stream = stream.last_position(graph)
    weight = graph.initializer(stored(encoding.source, "model.norm.weight"))
    with graph.scope("norm"):
        x, _ = encoding.residual.norm(graph, stream, weight, eps=config.text.rms_norm_eps)
    spec = LinearSpec(name="lm_head", weight=EMBEDDING_WEIGHT if config.tied else HEAD_WEIGHT)
    with graph.scope("lm_head"):
        return encoding.linear(graph, x, spec)


def _cache_inputs(graph: GraphBuilder, text: Qwen2Config, layer: int) -> LayerCache:
    shape = (BATCH, text.num_key_value_heads, PAST, text.head_dim)
    key, value = (
        graph.input(f"past_key_values.{layer}.{part}", ir.DataType.FLOAT, shape)
        for part in ("key", "value")
    )
    return LayerCache(key=key, value=value)


def _cache_outputs(graph: GraphBuilder, text: Qwen2Config, layer: int, cache: LayerCache) -> None:
    shape = (BATCH, text.num_key_value_heads, TOTAL, text.head_dim)
    graph.output(cache.key, f"present.{layer}.key", ir.DataType.FLOAT, shape)
    graph.output(cache.value, f"present.{layer}.value", ir.DataType.FLOAT, shape)
