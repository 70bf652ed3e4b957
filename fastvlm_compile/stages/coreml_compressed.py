"""Stages `coreml.*.<variant>`: float16 packages with quantized tensors for weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.progress import Progress


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """Nothing is left to decide: packages and tensors say it all."""


def vision(
    config: CompressConfig,  # noqa: ARG001
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
) -> None:
    """Write the compressed `fastvithd.mlpackage`.

    Args:
        config: empty.
        inputs: `packages`, the tower's stage, and `quantized`, the tower's part.
        out: an empty directory.
        progress: told of each weight.
    """
    from fastvlm_compile.export.coreml.compress.packages import compress_vision
    from fastvlm_compile.quantize.weights_file import open_quantized

    compress_vision(inputs["packages"], open_quantized(inputs["quantized"]), out, progress)


def projector(
    config: CompressConfig,  # noqa: ARG001
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
) -> None:
    """Write the compressed `projector.mlpackage`; arguments as `vision`."""
    from fastvlm_compile.export.coreml.compress.packages import compress_projector
    from fastvlm_compile.quantize.weights_file import open_quantized

    compress_projector(inputs["packages"], open_quantized(inputs["quantized"]), out, progress)


def embedding(
    config: CompressConfig,  # noqa: ARG001
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
) -> None:
    """Write the quantized embedding table; `quantized` is the language model's part."""
    from fastvlm_compile.export.coreml.compress.embedding import compress_embedding
    from fastvlm_compile.quantize.weights_file import open_quantized

    compress_embedding(inputs["packages"], open_quantized(inputs["quantized"]), out, progress)


def decoder(
    config: CompressConfig,  # noqa: ARG001
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
) -> None:
    """Write the compressed decoder packages and `language.json`.

    Args:
        config: empty.
        inputs: `packages`, the decoder's stage, `quantized`, the language model's part, and
            `weights`, which tell whether the head is the embedding.
        out: an empty directory.
        progress: told of each package and weight.
    """
    from fastvlm_compile.export.coreml.compress.packages import compress_decoder
    from fastvlm_compile.quantize.weights_file import open_quantized
    from reference.checkpoint.tensors import open_checkpoint

    compress_decoder(
        inputs["packages"],
        open_quantized(inputs["quantized"]),
        out,
        progress,
        tied=open_checkpoint(inputs["weights"]).tied,
    )
