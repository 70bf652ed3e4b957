"""Stages `mlx.<variant>`: the whole model for MLX, in the layout of mlx-vlm."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress


@dataclass(frozen=True, kw_only=True)
class MlxConfig:
    """Whose names and parts the folder has."""

    layout: Literal["mlx_vlm", "apple_app"] = "mlx_vlm"


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
    export_mlx(MlxExport(layout=config.layout), checkpoint, quantized, out, progress)
