"""Stages `onnx.*.<variant>`: the graphs that are smaller than float32."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_compile.progress import Progress
from fastvlm_compile.stages.onnx import (
    OnnxDecoderConfig,
    OnnxVisionConfig,
    decoder_graph,
    vision_graph,
)

if TYPE_CHECKING:
    from fastvlm_compile.quantize.scheme import Shape
    from fastvlm_compile.quantize.weights_file import QuantizedWeights
    from reference.checkpoint.tensors import Checkpoint


GRAPH_BYTES = 512 * 1024
"""Nodes, names and rotary tables of a small context."""


@dataclass(frozen=True, kw_only=True)
class OnnxVariantLanguageConfig(OnnxDecoderConfig):
    """What decides decoder and embedding of a variant.

    Attributes:
        variant: names the files.
        context_length: positions for which rotary tables are stored.
        max_bits_per_weight: what the files of each graph may have on disk, everything counted but
            `GRAPH_BYTES`, which only a tiny model notices; of `mixed` both graphs together, as its
            budget is one.
        share_tied: the embedding reads the decoder's file where the head is the same tensor.
    """

    variant: str
    context_length: int
    max_bits_per_weight: float
    share_tied: bool = False


def vision_half(
    config: OnnxVisionConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `vision_encoder_fp16.onnx`: float16 weights, float32 arithmetic.

    Args:
        config: image size and opset.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of each weight.
    """
    from fastvlm_compile.export.onnx.vision_half import export_half_vision
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    export_half_vision(vision_graph(config, checkpoint), checkpoint, out, progress)


def vision_int8(
    config: OnnxVisionConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `vision_encoder_quantized.onnx`: static QDQ, depthwise convolutions in float32.

    Args:
        config: image size and opset.
        inputs: `weights`, `quantized`, the tower's part, and `calibration`, whose images decide the
            ranges of the activations.
        out: an empty directory.
        progress: told of each image and weight.
    """
    from fastvlm_compile.export.onnx.vision_qdq import export_quantized_vision
    from fastvlm_compile.quantize.calibration import open_calibration
    from fastvlm_compile.quantize.weights_file import open_quantized
    from reference.checkpoint.tensors import open_checkpoint

    calibration = open_calibration(inputs["calibration"])
    checkpoint = open_checkpoint(inputs["weights"])
    quantized = open_quantized(inputs["quantized"])
    export_quantized_vision(
        vision_graph(config, checkpoint),
        checkpoint,
        quantized,
        out,
        progress,
        calibration_images=map(calibration.pixel_values, calibration.index.image_ids),
    )
    _check_tower_bytes(checkpoint, quantized, out)


def _check_tower_bytes(checkpoint: "Checkpoint", quantized: "QuantizedWeights", out: Path) -> None:
    """Quantized tensors at their own bytes, all others in float32, and the nodes between.

    Each tensor begins on a page of its own, so that it can be mapped.
    """
    from math import prod

    from fastvlm_compile.export.onnx.files import ALIGNMENT_BYTES
    from fastvlm_compile.export.onnx.variants import check_variant_bytes
    from reference.checkpoint.names import HEAD_PROJECTION, PROJECTOR_PREFIX, VISION_PREFIX

    shapes = {
        name: info.shape
        for name, info in checkpoint.tensors.items()
        if name.startswith((VISION_PREFIX, PROJECTOR_PREFIX)) and name != HEAD_PROJECTION
    }
    others = sum(prod(shape) for name, shape in shapes.items() if name not in quantized.entries)
    own = sum(entry.size_bytes for name, entry in quantized.entries.items() if name in shapes)
    num_weights = sum(prod(shape) for shape in shapes.values())
    scales = 4 * sum(entry.shape[0] for entry in quantized.entries.values())
    limit_bytes = own + scales + 4 * others + ALIGNMENT_BYTES * len(shapes) + GRAPH_BYTES
    check_variant_bytes(
        sorted(out.iterdir()),
        num_weights=num_weights,
        max_bits_per_weight=8 * limit_bytes / num_weights,
    )


def language_half(
    config: OnnxVariantLanguageConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `decoder_model_merged_fp16.onnx` and `embed_tokens_fp16.onnx`.

    Args:
        config: opset and which logits.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of each weight.
    """
    from fastvlm_compile.export.onnx.export_variants import (
        export_half_decoder,
        export_half_embedding,
    )
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    export_half_decoder(
        decoder_graph(config, checkpoint),
        checkpoint,
        out,
        progress,
        context_length=config.context_length,
    )
    export_half_embedding(checkpoint, out, progress, opset=config.opset)
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    check_language_bytes(config, shapes, out, tied=checkpoint.tied)


def language(
    config: OnnxVariantLanguageConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write the quantized decoder and embedding; they share a file where the head is tied.

    Args:
        config: variant, opset and which logits.
        inputs: `weights`, a checkpoint in any layout, and `quantized`, the language model's part.
        out: an empty directory.
        progress: told of each weight.
    """
    from fastvlm_compile.export.onnx.export_variants import (
        export_quantized_decoder,
        export_quantized_embedding,
    )
    from fastvlm_compile.export.onnx.gather_quantized import shares_bytes_with_head
    from fastvlm_compile.quantize.weights_file import open_quantized
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    quantized = open_quantized(inputs["quantized"])
    saved = export_quantized_decoder(
        decoder_graph(config, checkpoint),
        checkpoint,
        quantized,
        out,
        progress,
        variant=config.variant,
        context_length=config.context_length,
    )
    shared = config.share_tied and bool(saved.data) and shares_bytes_with_head(quantized)
    export_quantized_embedding(
        quantized,
        out,
        progress,
        opset=config.opset,
        variant=config.variant,
        share_with=saved if shared and checkpoint.tied else None,
    )
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    check_language_bytes(config, shapes, out, tied=checkpoint.tied)


def check_language_bytes(
    config: OnnxVariantLanguageConfig, shapes: "Mapping[str, Shape]", out: Path, *, tied: bool
) -> None:
    """What is stored must be as small as the variant's name says.

    Args:
        config: with the variant and its bits.
        shapes: of the checkpoint's tensors.
        out: where the graphs are.
        tied: the head is the embedding.

    Raises:
        ExportError: it is not.
    """
    from math import prod

    from fastvlm_compile.export.onnx.decoder import DECODER
    from fastvlm_compile.export.onnx.embedding import EMBEDDING
    from fastvlm_compile.export.onnx.variants import check_variant_bytes
    from fastvlm_compile.quantize.roles import role_of
    from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD

    linears = sum(
        prod(shape) for name, shape in shapes.items() if role_of(name, shape) == "language"
    )
    embedding = shapes[EMBED_TOKENS]
    head = shapes.get(LM_HEAD, embedding)
    counts = {DECODER: linears + prod(head), EMBEDDING: prod(embedding)}
    checked: list[tuple[str, ...]] = [(DECODER,), (EMBEDDING,)]
    if config.variant == "mixed":
        # A tied embedding is the decoder's head, which the budget counts once.
        checked = [(DECODER,)] if tied else [(DECODER, EMBEDDING)]
    for stems in checked:
        num_weights = sum(counts[stem] for stem in stems)
        check_variant_bytes(
            sorted(path for stem in stems for path in out.glob(f"{stem}*")),
            num_weights=num_weights,
            max_bits_per_weight=config.max_bits_per_weight + 8 * GRAPH_BYTES / num_weights,
        )
