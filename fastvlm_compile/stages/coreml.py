"""Stages `coreml.vision.*`: the vision tower as the Core ML package of Apple's app."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress


@dataclass(frozen=True, kw_only=True)
class CoreMLVisionConfig:
    """Image side S in pixels, a multiple of 64, and the precision inside the package."""

    image_size: int
    precision: Literal["float16", "float32"]


def vision(
    config: CoreMLVisionConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `fastvithd.mlpackage`: `images` [1, 3, S, S] -> `image_features` [1, T, C].

    Args:
        config: image size and precision.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of loading, converting, writing and checking.
    """
    from dataclasses import replace

    from fastvlm_compile.export.coreml.convert import VisionPackageConfig, export_vision_package
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    package = VisionPackageConfig(
        vision=replace(checkpoint.config.vision, image_size=config.image_size),
        precision=config.precision,
    )
    export_vision_package(package, checkpoint, out, progress)
