"""Stages `coreml.decoder.*`, `coreml.embedding.*`, `coreml.projector.*`: all but the tower."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress
from reference.kept import NOTHING_KEPT, Kept


@dataclass(frozen=True, kw_only=True)
class CoreMLDecoderConfig:
    """Sizes of the decoder's packages.

    Attributes:
        context_length: positions of prompt, image and answer together.
        prefill_chunk: rows that `prefill` takes; a multiple or a divisor of 32.
        max_chunk_mb: weights of one package at most, 10^6 bytes as stored in float16.
        precision: inside the packages, of the cache, and of inputs and outputs.
    """

    context_length: int
    prefill_chunk: int
    max_chunk_mb: float
    precision: Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class CoreMLEmbeddingConfig:
    """The precision of the table: that of the decoder it feeds."""

    precision: Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class CoreMLProjectorConfig:
    """What a projector package is for.

    Attributes:
        image_size: side S in pixels.
        precision: inside the package and of its output.
        image_sizes: further sides, each of which gets a function of its own.
    """

    image_size: int
    precision: Literal["float16", "float32"]
    image_sizes: tuple[int, ...] = ()


def decoder(
    config: CoreMLDecoderConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Write `decoder.mlpackage` (or `decoder_1_of_N.mlpackage` ..) and `language.json`.

    Args:
        config: sizes and precision.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of each package.
        kept: the packages that were made before a kill.

    Raises:
        UnsupportedExportError: no packages can have these sizes.
    """
    from fastvlm_compile.export.coreml.language.export import export_decoder
    from fastvlm_compile.export.coreml.language.plan import DecoderConfig
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    packages = DecoderConfig(
        text=checkpoint.config.text,
        tied=checkpoint.tied,
        context_length=config.context_length,
        prefill_chunk=config.prefill_chunk,
        max_chunk_mb=config.max_chunk_mb,
        precision=config.precision,
    )
    export_decoder(packages, checkpoint, out, progress, kept=kept)


def embedding(
    config: CoreMLEmbeddingConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `embedding.safetensors`: one tensor `embed_tokens` [V, H].

    Args:
        config: precision.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of the rows.
    """
    from fastvlm_compile.export.coreml.embedding import export_embedding
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    export_embedding(checkpoint, out, progress, precision=config.precision)


def projector(
    config: CoreMLProjectorConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `projector.mlpackage`: `image_features` [1, T, C] -> `image_embeds` [1, T, H].

    Args:
        config: image sizes and precision.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of converting and checking.
    """
    from dataclasses import replace

    from fastvlm_compile.export.coreml.projector import ProjectorPackageConfig, export_projector
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    package = ProjectorPackageConfig(
        vision=replace(checkpoint.config.vision, image_size=config.image_size),
        hidden_size=checkpoint.config.text.hidden_size,
        precision=config.precision,
        further_sizes=config.image_sizes,
    )
    export_projector(package, checkpoint, out, progress)
