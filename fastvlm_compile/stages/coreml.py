"""Stages `coreml.vision.*`: the vision tower as the Core ML package of Apple's app."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress


@dataclass(frozen=True, kw_only=True)
class CoreMLVisionConfig:
    """What a vision package is for.

    Attributes:
        image_size: side S in pixels, a multiple of 64.
        precision: inside the package.
        image_sizes: further sides, each of which gets a function of its own.
    """

    image_size: int
    precision: Literal["float16", "float32"]
    image_sizes: tuple[int, ...] = ()


def vision(
    config: CoreMLVisionConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `fastvithd.mlpackage`: `images` [1, 3, S, S] -> `image_features` [1, T, C].

    Args:
        config: image sizes and precision.
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
        further_sizes=config.image_sizes,
    )
    export_vision_package(package, checkpoint, out, progress)
