"""Stages `mlx.<variant>` and `apple_app.<variant>`: the model for mlx-vlm, and for Apple's app."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress

_ONE_FILE_BYTES = 2**62
"""Apple's app is given one `model.safetensors`, however large."""


@dataclass(frozen=True, kw_only=True)
class MlxConfig:
    """Whose names and parts the folder has."""

    layout: Literal["mlx_vlm", "apple_app"] = "mlx_vlm"
    tower_dtype: Literal["float16", "float32"] = "float16"
    """Of the vision tower, which Apple's app does not have."""


def export(config: MlxConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Write `config.json` and `model.safetensors`.

    Args:
        config: the layout.
        inputs: `weights`, a checkpoint in any layout, and for a quantized variant its parts,
            `quantized_language` and `quantized_projector`.
        out: an empty directory.
        progress: told of every tensor.
    """
    from fastvlm_compile.export.mlx.export import MlxExport, export_mlx
    from fastvlm_compile.quantize.weights_file import open_quantized
    from reference.checkpoint.tensors import open_checkpoint

    parts = [inputs[role] for role in sorted(inputs) if role.startswith("quantized_")]
    quantized = open_quantized(*parts) if parts else None
    checkpoint = open_checkpoint(inputs["weights"])
    export = MlxExport(layout=config.layout, tower_dtype=config.tower_dtype)
    if config.layout == "apple_app":
        export = replace(export, max_shard_bytes=_ONE_FILE_BYTES)
    export_mlx(export, checkpoint, quantized, out, progress)
