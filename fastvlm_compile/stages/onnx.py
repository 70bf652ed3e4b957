"""Stages `onnx.*`: the three float32 graphs of the transformers.js layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_compile.progress import Progress

if TYPE_CHECKING:
    from fastvlm_compile.export.onnx.decoder import DecoderGraphConfig
    from fastvlm_compile.export.onnx.export import VisionGraphConfig
    from reference.checkpoint.tensors import Checkpoint


@dataclass(frozen=True, kw_only=True)
class OnnxVisionConfig:
    """Image side S in pixels, a multiple of 64, and the ONNX opset."""

    image_size: int
    opset: int


@dataclass(frozen=True, kw_only=True)
class OnnxEmbedConfig:
    """The ONNX opset."""

    opset: int


@dataclass(frozen=True, kw_only=True)
class OnnxDecoderConfig:
    """The ONNX opset, and whether logits are computed for the last position alone."""

    opset: int
    logits: Literal["last", "full"]


def vision_encoder(
    config: OnnxVisionConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `vision_encoder.onnx`: `pixel_values` [B, 3, S, S] -> `image_features` [B, T, H].

    Args:
        config: image size and opset.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of tracing, simplifying, each weight and the comparison.
    """
    from fastvlm_compile.export.onnx.export import export_vision
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    export_vision(vision_graph(config, checkpoint), checkpoint, out, progress)


def embed_tokens(
    config: OnnxEmbedConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `embed_tokens.onnx`: `input_ids` [B, L] -> `inputs_embeds` [B, L, H].

    Args:
        config: opset.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of each weight.
    """
    from fastvlm_compile.export.onnx.export import export_embedding
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    export_embedding(checkpoint, out, progress, opset=config.opset)


def decoder_model_merged(
    config: OnnxDecoderConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `decoder_model_merged.onnx`: embeddings and cache in, logits and longer cache out.

    Args:
        config: opset and which logits.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of each weight.
    """
    from fastvlm_compile.export.onnx.export import export_decoder
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    export_decoder(decoder_graph(config, checkpoint), checkpoint, out, progress)


def vision_graph(config: OnnxVisionConfig, checkpoint: "Checkpoint") -> "VisionGraphConfig":
    """The tower of a checkpoint at an image size, for every variant of it."""
    from dataclasses import replace

    from fastvlm_compile.export.onnx.export import VisionGraphConfig

    model = checkpoint.config
    return VisionGraphConfig(
        vision=replace(model.vision, image_size=config.image_size),
        hidden_size=model.text.hidden_size,
        opset=config.opset,
    )


def decoder_graph(config: OnnxDecoderConfig, checkpoint: "Checkpoint") -> "DecoderGraphConfig":
    """The decoder of a checkpoint, for every variant of it."""
    from fastvlm_compile.export.onnx.decoder import DecoderGraphConfig

    return DecoderGraphConfig(
        text=checkpoint.config.text,
        tied=checkpoint.tied,
        logits=config.logits,
        opset=config.opset,
    )
