"""The computation of a chunk as a torch module that can be traced, and its weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fastvlm_compile.export.coreml.language.attention import (
    Geometry,
    attend,
    begin,
    rotary_table,
)
from fastvlm_compile.export.coreml.language.interface import (
    KEY_CACHE,
    NUM_VALID,
    POSITION,
    VALUE_CACHE,
    FunctionName,
    interface,
    states,
)
from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig
from fastvlm_compile.export.coreml.language.rms_norm import fused_rms_norm
from fastvlm_compile.export.mapped_copy import mapped_copies
from fastvlm_compile.export.weight_source import WeightSource
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
from reference.qwen2 import DecoderLayer, RMSNorm


class ChunkWeights(nn.Module):
    """The parameters of a chunk under their canonical names, less the prefix `model.`."""

    def __init__(self, chunk: Chunk, config: DecoderConfig) -> None:
        super().__init__()
        text = config.text
        span = chunk.layers
        numbers = range(span.first, span.first + span.count) if span is not None else ()
        self.layers = nn.ModuleDict({str(number): DecoderLayer(text) for number in numbers})
        if chunk.vocabulary is not None:
            self.norm = RMSNorm(text.hidden_size, text.rms_norm_eps)
            self.lm_head = nn.Linear(text.hidden_size, chunk.vocabulary.count, bias=False)


class ChunkFunction(nn.Module):
    """One function of a chunk: rows and numbers in, rows or logits out, the cache updated.

    The functions of a chunk share its weights; the rest of a function's tensors are constants and
    the states.

    Args:
        weights: the chunk's parameters.
        chunk, config: which part of which decoder.
        function: decides the number of rows.
    """

    def __init__(
        self, weights: ChunkWeights, chunk: Chunk, config: DecoderConfig, function: FunctionName
    ) -> None:
        super().__init__()
        promised = interface(chunk, config, function)
        self.input_names = tuple(tensor.name for tensor in promised.inputs[1:])
        self.geometry = Geometry.of(
            config.text, rows=promised.length, cache_length=config.cache_length
        )
        self.layers = weights.layers
        self.has_head = chunk.vocabulary is not None
        if chunk.vocabulary is not None:
            self.norm = weights.norm
            self.lm_head = weights.lm_head
        if chunk.layers is not None:
            self.register_buffer("rotary", rotary_table(config.text, config.cache_length))
        for state in states(chunk, config):
            self.register_buffer(state.name, torch.zeros(state.shape))

    def forward(self, rows: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Rows [1, T, D] and the other inputs in the interface's order -> its outputs."""
        given = dict(zip(self.input_names, others, strict=True))
        caches: tuple[Tensor, ...] = ()
        if POSITION in given:
            caches = tuple(
                given[name] if name in given else self.get_buffer(name)
                for name in (KEY_CACHE, VALUE_CACHE)
            )
            rows = self._through_layers(rows, given[POSITION], (caches[0], caches[1]))
        if self.has_head:
            rows = self._logits(rows, given.get(NUM_VALID))
        return (rows, *caches) if KEY_CACHE in given else rows

    def _through_layers(self, x: Tensor, position: Tensor, caches: tuple[Tensor, Tensor]) -> Tensor:
        step = begin(self.geometry, position, self.get_buffer("rotary"))
        for slot, layer in enumerate(self.layers.values()):
            assert isinstance(layer, DecoderLayer)
            normed = fused_rms_norm(layer.input_layernorm, x)
            x = x + attend(layer.self_attn, normed, step, caches, slot)
            x = x + layer.mlp(fused_rms_norm(layer.post_attention_layernorm, x))
        return x

    def _logits(self, rows: Tensor, num_valid: Tensor | None) -> Tensor:
        """Of the last valid row: [1, T, D] -> [1, 1, rows of the head]."""
        size = self.lm_head.in_features
        if num_valid is not None:
            # A lookup by row number: it picks one row and keeps the shape fixed.
            table = rows.view(self.geometry.rows, size)
            rows = nn.functional.embedding(num_valid - 1, table).view(1, 1, size)
        logits: Tensor = self.lm_head(fused_rms_norm(self.norm, rows))
        return logits


def load_weights(
    chunk: Chunk, config: DecoderConfig, source: WeightSource, scratch: Path
) -> ChunkWeights:
    """The chunk's parameters in float32, mapped from a new file: they take no memory.

    Args:
        chunk, config: which part of which decoder.
        source: the weights; only the chunk's are read.
        scratch: the file; of no use to anybody else.
    """
    with torch.device("meta"):
        module = ChunkWeights(chunk, config)
    parameters = ((name, stored(name, chunk, config, source)) for name in module.state_dict())
    module.load_state_dict(mapped_copies(parameters, scratch), strict=True, assign=True)
    return module.eval().requires_grad_(requires_grad=False)


def stored(name: str, chunk: Chunk, config: DecoderConfig, source: WeightSource) -> Tensor:
    """A parameter of a chunk as the checkpoint has it; of the head, the chunk's rows."""
    if name != LM_HEAD:
        return source.read(f"model.{name}")
    assert chunk.vocabulary is not None
    span = chunk.vocabulary
    return source.read(EMBED_TOKENS if config.tied else LM_HEAD)[
        span.first : span.first + span.count
    ]
