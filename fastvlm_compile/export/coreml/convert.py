"""The vision tower as a Core ML package.

The front end is `torch.export`: it needs shapes only, where tracing would run the tower once at
full size, and it lowers to the same ops.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastvlm_compile.export.coreml.check import check_package
from fastvlm_compile.export.coreml.contract import IMAGE_FEATURES, IMAGES, Precision
from fastvlm_compile.export.coreml.functions import write_sizes
from fastvlm_compile.export.coreml.metadata import describe
from fastvlm_compile.export.coreml.naming import count_names_from_zero
from fastvlm_compile.export.coreml.quiet import quiet_coremltools
from fastvlm_compile.export.coreml.vision_module import VisionTower, load_tower
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress
from reference.config import VisionConfig

if TYPE_CHECKING:
    from coremltools import PassPipeline
    from coremltools.models import MLModel

PACKAGE = "fastvithd.mlpackage"
"""Apple's app takes its Swift class from the file name."""

DEPLOYMENT_TARGET = "iOS18"
"""Apple's FastVLM app asks for iOS 18 itself, so nobody is lost; it is the first target with fused
attention, with functions that share weights, and with grouped palettization."""


@dataclass(frozen=True, kw_only=True)
class VisionPackageConfig:
    """What decides a vision package.

    Attributes:
        vision: the tower, for images of the size that the function `main` takes.
        precision: of the computation and the stored weights.
        further_sizes: sides of images in pixels, each of which gets a function of its own.
    """

    vision: VisionConfig
    precision: Precision
    further_sizes: tuple[int, ...] = ()

    def of_size(self, size: int) -> "VisionPackageConfig":
        """The package of one size alone."""
        return replace(self, vision=replace(self.vision, image_size=size), further_sizes=())


def export_vision_package(
    config: VisionPackageConfig, source: WeightSource, out: Path, progress: Progress
) -> Path:
    """Write `fastvithd.mlpackage` and check it; its bytes depend on nothing but the arguments.

    Raises:
        ExportError: the package is not what Apple's contract says, or a weight overflowed.
    """
    progress(0, 3, "loading the vision tower")
    module = load_tower(config.vision, source)
    progress(1, 3, f"converting to {config.precision}")
    package = out / PACKAGE
    with tempfile.TemporaryDirectory(dir=out) as folder:
        aside = Path(folder) / PACKAGE
        write_sizes(
            config.vision.image_size,
            config.further_sizes,
            lambda size: convert(module, config.of_size(size)),
            aside,
        )
        progress(2, 3, "checking the package")
        check_package(aside, config.vision, config.precision, further_sizes=config.further_sizes)
        shutil.move(aside, package)
    progress(3, 3, f"{PACKAGE} written")
    return package


def convert(module: VisionTower, config: VisionPackageConfig) -> "MLModel":
    """The converted tower with its descriptions, not saved and (on a Mac) not compiled."""
    size = config.vision.image_size
    with quiet_coremltools():
        import coremltools as ct

        from fastvlm_compile.export.coreml.half_precision import with_lean_cast

        exported = torch.export.export(module, (torch.zeros(1, 3, size, size),))
        count_names_from_zero()
        model = ct.convert(
            exported.run_decompositions({}),
            inputs=[ct.TensorType(IMAGES, shape=(1, 3, size, size), dtype=np.float32)],
            outputs=[ct.TensorType(IMAGE_FEATURES, dtype=np.float32)],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, DEPLOYMENT_TARGET),
            compute_precision=getattr(ct.precision, config.precision.upper()),
            pass_pipeline=with_lean_cast(_passes(), config.precision),
            skip_model_load=True,
        )
        describe(model, config.vision, precision=config.precision)
    return model


def _passes() -> "PassPipeline":
    """All of coremltools' passes but the one that multiplies layer scales into weights.

    So the constants of convolutions are the checkpoint's own tensors, and quantized ones can take
    their place. On the tiny model the float16 package is 1.2e-3 from the reference either way.
    """
    import coremltools as ct

    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes({"common::fuse_conv_scale"})
    return pipeline
