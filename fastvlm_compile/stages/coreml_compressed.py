"""Stages `coreml.*.<variant>`: float16 packages with quantized tensors for weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.roles import Role
from reference.kept import NOTHING_KEPT, Kept

CoreMLPart = Literal["vision", "projector", "embedding", "decoder"]

_ROLES: Mapping[CoreMLPart, tuple[Role, ...]] = {
    "vision": ("vision_linear", "vision_pointwise", "vision_dense"),
    "projector": ("projector",),
    "embedding": ("embedding",),
    "decoder": ("language", "head"),
}
"""Whose quantized tensors a part holds; a tied head is the embedding's."""


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """Which part of the model."""

    part: CoreMLPart


def compress(
    config: CompressConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Write a part again under the same names, compressed; everything else in it is as it was.

    Args:
        config: which part.
        inputs: `packages`, the part's float16 stage, `quantized`, the tensors, and `weights`, which
            tell whether the head is the embedding.
        out: an empty directory.
        progress: told of each package and weight.
        kept: the decoder's packages that were made before a kill.
    """
    from fastvlm_compile.export.coreml.compress.embedding import compress_embedding
    from fastvlm_compile.export.coreml.compress.packages import (
        compress_decoder,
        compress_projector,
        compress_vision,
    )
    from fastvlm_compile.quantize.roles import role_of
    from fastvlm_compile.quantize.shrunk import check_shrunk
    from fastvlm_compile.quantize.weights_file import open_quantized
    from reference.checkpoint.tensors import open_checkpoint

    quantized = open_quantized(inputs["quantized"])
    tied = open_checkpoint(inputs["weights"]).tied
    folder = inputs["packages"]
    if config.part == "decoder":
        compress_decoder(folder, quantized, out, progress, tied=tied, kept=kept)
    else:
        write = {
            "vision": compress_vision,
            "projector": compress_projector,
            "embedding": compress_embedding,
        }[config.part]
        write(folder, quantized, out, progress)
    roles = _ROLES[config.part]
    if config.part == "decoder" and tied:
        roles = (*roles, *_ROLES["embedding"])
    entries = (e for name, e in quantized.entries.items() if role_of(name, e.shape) in roles)
    check_shrunk(folder, out, entries, bits_before=16)
