"""The graphs of the variants that are smaller than float32, from open weights to checked files."""

from dataclasses import replace
from pathlib import Path

from fastvlm_compile.export.errors import UnsupportedExportError
from fastvlm_compile.export.onnx.check import check_graph
from fastvlm_compile.export.onnx.contract import decoder_contract, embedding_contract
from fastvlm_compile.export.onnx.decoder import (
    DECODER,
    EMBEDDING_WEIGHT,
    HEAD_WEIGHT,
    DecoderGraphConfig,
    build_decoder,
)
from fastvlm_compile.export.onnx.embedding import EMBEDDING
from fastvlm_compile.export.onnx.files import INLINE_LIMIT_BYTES, SavedGraph, save_graph
from fastvlm_compile.export.onnx.fused import half_encoding, quantized_encoding
from fastvlm_compile.export.onnx.gather_quantized import build_quantized_embedding
from fastvlm_compile.export.onnx.graph import check_opset
from fastvlm_compile.export.onnx.half import build_half_embedding
from fastvlm_compile.export.onnx.matmul_nbits import AccuracyLevel
from fastvlm_compile.export.onnx.read_back import check_same_integers
from fastvlm_compile.export.onnx.variants import variant_suffix
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.weights_file import QuantizedWeights

LAYERS_PREFIX = "model.layers."

SHIPPED_ACCURACY: AccuracyLevel = 4
"""What a CPU wants: see `AccuracyLevel`."""


def export_quantized_decoder(
    config: DecoderGraphConfig,
    source: WeightSource,
    quantized: QuantizedWeights,
    out: Path,
    progress: Progress,
    *,
    variant: str,
    context_length: int,
    accuracy_level: AccuracyLevel = SHIPPED_ACCURACY,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
) -> SavedGraph:
    """Write `decoder_model_merged_<suffix>.onnx`, fused, and check it.

    Linears and the head that `quantized` has are MatMulNBits over its integers; everything else is
    the float32 of `source`.

    Args:
        config: of the graph.
        source: norms, biases, and whatever is not quantized.
        quantized: codes, scales and zero points.
        out: where the files go.
        progress: told of each weight.
        variant: names the files.
        context_length: positions that the graph knows. The model's 32768 would take 8 MB of rotary
            tables, a thirtieth of what 4 bits make of the 0.5B.
        accuracy_level: of the activations.
        inline_limit_bytes: see `save_graph`.

    Raises:
        UnsupportedExportError: a tensor's scheme is none that MatMulNBits holds, or the heads have
            a width that GroupQueryAttention refuses, or the context is longer than the model's.
        ExportError: the file, read again, does not hold these integers.
    """
    check_opset(config.opset)
    config = _with_positions(config, context_length)
    encoding = quantized_encoding(source, quantized, accuracy_level=accuracy_level)
    stem = f"{DECODER}{variant_suffix(variant)}"
    model = build_decoder(config, encoding)
    saved = save_graph(model, out, stem, progress, inline_limit_bytes=inline_limit_bytes)
    check_graph(saved.graph, decoder_contract(config.text, last_only=config.logits == "last"))
    check_same_integers(saved.graph, quantized, quantized_linears(config, quantized))
    return saved


def export_half_decoder(
    config: DecoderGraphConfig,
    source: WeightSource,
    out: Path,
    progress: Progress,
    *,
    context_length: int,
    variant: str = "fp16",
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
) -> SavedGraph:
    """Write `decoder_model_merged_fp16.onnx`, fused, its matrices stored in float16.

    Args:
        config: of the graph.
        source: all weights.
        out: where the files go.
        progress: told of each weight.
        context_length: positions that the graph knows.
        variant: names the files.
        inline_limit_bytes: see `save_graph`.

    Raises:
        ExportError: a weight is beyond float16's range.
        UnsupportedExportError: the heads have a width that GroupQueryAttention refuses, or the
            context is longer than the model's.
    """
    check_opset(config.opset)
    config = _with_positions(config, context_length)
    model = build_decoder(config, half_encoding(source))
    stem = f"{DECODER}{variant_suffix(variant)}"
    saved = save_graph(model, out, stem, progress, inline_limit_bytes=inline_limit_bytes)
    check_graph(saved.graph, decoder_contract(config.text, last_only=config.logits == "last"))
    return saved


def export_quantized_embedding(
    quantized: QuantizedWeights,
    out: Path,
    progress: Progress,
    *,
    opset: int,
    variant: str,
    share_with: SavedGraph | None = None,
) -> SavedGraph:
    """Write `embed_tokens_<suffix>.onnx`, one GatherBlockQuantized, and check it.

    Args:
        quantized: has the embedding.
        out: where the graph goes.
        progress: told of each weight.
        opset: of the graph.
        variant: names the file.
        share_with: a decoder with a tied head in `out`, written from the same `quantized`, whose
            data file holds the embedding (see `shares_bytes_with_head`).

    Raises:
        UnsupportedExportError: the embedding is not quantized, or in a way that the op cannot hold.
        ExportError: the bytes of `share_with` are not the embedding's, or the file, read again,
            does not hold these integers.
    """
    check_opset(opset)
    model = build_quantized_embedding(quantized, opset=opset)
    stem = f"{EMBEDDING}{variant_suffix(variant)}"
    saved = save_graph(model, out, stem, progress, share_with=share_with)
    check_graph(saved.graph, embedding_contract(quantized.entries[EMBEDDING_WEIGHT].shape[1]))
    check_same_integers(saved.graph, quantized, [EMBEDDING_WEIGHT])
    return saved


def export_half_embedding(
    source: WeightSource, out: Path, progress: Progress, *, opset: int, variant: str = "fp16"
) -> SavedGraph:
    """Write `embed_tokens_fp16.onnx`, a Gather from a float16 table, and check it.

    Raises:
        ExportError: a weight is beyond float16's range.
    """
    check_opset(opset)
    model = build_half_embedding(source, opset=opset)
    saved = save_graph(model, out, f"{EMBEDDING}{variant_suffix(variant)}", progress)
    check_graph(saved.graph, embedding_contract(source.tensors[EMBEDDING_WEIGHT].shape[1]))
    return saved


def quantized_linears(config: DecoderGraphConfig, quantized: QuantizedWeights) -> list[str]:
    """Canonical names of what a decoder holds of `quantized`: its linears and its head."""
    head = EMBEDDING_WEIGHT if config.tied else HEAD_WEIGHT
    return [name for name in quantized.entries if name.startswith(LAYERS_PREFIX) or name == head]


def _with_positions(config: DecoderGraphConfig, context_length: int) -> DecoderGraphConfig:
    """A config whose graph knows so many positions: the length of its rotary tables."""
    limit = config.text.max_position_embeddings
    if not 1 <= context_length <= limit:
        raise UnsupportedExportError(
            f"a context of {context_length} positions is not between 1 and the model's {limit}",
            hint="give a `context_length` in that range",
        )
    return replace(config, text=replace(config.text, max_position_embeddings=context_length))
