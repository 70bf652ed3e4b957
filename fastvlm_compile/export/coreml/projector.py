"""The projector as a package of its own: `image_features` in, rows for the decoder out.

Not a second function of `fastvithd.mlpackage`: Apple's app, and whatever else knows that package,
expects exactly one function in it, and of a second one with the tower inside, Core ML would compile
the tower twice. As a package of two matrices it costs one more call, the tower is stored once, and
either can be compressed or replaced alone.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastvlm_compile.export.coreml.blobs import read_float_blob
from fastvlm_compile.export.coreml.canonical import read_spec, spec_path
from fastvlm_compile.export.coreml.check import op_counts, operations
from fastvlm_compile.export.coreml.check_functions import check_functions
from fastvlm_compile.export.coreml.contract import IMAGE_FEATURES, Feature, Precision
from fastvlm_compile.export.coreml.convert import DEPLOYMENT_TARGET
from fastvlm_compile.export.coreml.functions import by_size, write_sizes
from fastvlm_compile.export.coreml.metadata import METADATA_PREFIX
from fastvlm_compile.export.coreml.naming import count_names_from_zero
from fastvlm_compile.export.coreml.quiet import quiet_coremltools
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress
from reference.checkpoint.names import PROJECTOR_PREFIX
from reference.config import VisionConfig
from reference.projector import Projector

if TYPE_CHECKING:
    from coremltools.models import MLModel

PROJECTOR_OPS = frozenset({"cast", "const", "gelu", "linear"})

PACKAGE = "projector.mlpackage"
IMAGE_EMBEDS = "image_embeds"


@dataclass(frozen=True, kw_only=True)
class ProjectorPackageConfig:
    """What decides a projector package.

    Attributes:
        vision: gives the T rows of C channels that come in.
        hidden_size: H, channels that go out.
        precision: of the computation, the stored weights and the output; the input is float32,
            as the tower's package gives it.
        further_sizes: sides of images in pixels, each of which gets a function of its own: the
            number of rows follows from it.
    """

    vision: VisionConfig
    hidden_size: int
    precision: Precision
    further_sizes: tuple[int, ...] = ()

    def of_size(self, size: int) -> "ProjectorPackageConfig":
        """The package of one size alone."""
        return replace(self, vision=replace(self.vision, image_size=size), further_sizes=())

    @property
    def input(self) -> Feature:
        """`image_features` [1, T, C], float32."""
        shape = (1, self.vision.num_tokens, self.vision.out_channels)
        return Feature(name=IMAGE_FEATURES, shape=shape)

    @property
    def output(self) -> Feature:
        """`image_embeds` [1, T, H], in the precision."""
        shape = (1, self.vision.num_tokens, self.hidden_size)
        return Feature(name=IMAGE_EMBEDS, shape=shape, dtype=self.precision)


def export_projector(
    config: ProjectorPackageConfig, source: WeightSource, out: Path, progress: Progress
) -> Path:
    """Write `projector.mlpackage` and check it; its bytes depend on nothing but the arguments.

    Raises:
        ExportError: the package is not what it should be, or a weight overflowed.
    """
    progress(0, 2, f"converting the projector to {config.precision}")
    module = _load(config, source)
    package = out / PACKAGE
    with tempfile.TemporaryDirectory(dir=out) as folder:
        aside = Path(folder) / PACKAGE
        write_sizes(
            config.vision.image_size,
            config.further_sizes,
            lambda size: _convert(module, config.of_size(size)),
            aside,
        )
        progress(1, 2, "checking the package")
        _check(aside, config)
        shutil.move(aside, package)
    progress(2, 2, f"{PACKAGE} written")
    return package


def _load(config: ProjectorPackageConfig, source: WeightSource) -> Projector:
    """The projector in float32, nothing of it mapped from the file."""
    with torch.device("meta"):
        module = Projector(config.vision.out_channels, config.hidden_size)
    state = {
        name: source.read(PROJECTOR_PREFIX + name).to(torch.float32).clone()
        for name in module.state_dict()
    }
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(requires_grad=False)


def _convert(module: Projector, config: ProjectorPackageConfig) -> "MLModel":
    shape = config.input.shape
    with quiet_coremltools():
        import coremltools as ct

        from fastvlm_compile.export.coreml.half_precision import with_lean_cast

        exported = torch.export.export(module, (torch.zeros(shape),))
        count_names_from_zero()
        model = ct.convert(
            exported.run_decompositions({}),
            inputs=[ct.TensorType(IMAGE_FEATURES, shape=shape, dtype=np.float32)],
            outputs=[ct.TensorType(IMAGE_EMBEDS, dtype=np.dtype(config.precision).type)],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, DEPLOYMENT_TARGET),
            compute_precision=getattr(ct.precision, config.precision.upper()),
            pass_pipeline=with_lean_cast(ct.PassPipeline(), config.precision),
            skip_model_load=True,
        )
    model.short_description = (
        f"FastVLM's projector: features of an image to embeddings ({config.precision})."
    )
    model.input_description[IMAGE_FEATURES] = "What fastvithd.mlpackage gives."
    model.output_description[IMAGE_EMBEDS] = "Rows that stand where the prompt has the image."
    model.user_defined_metadata[METADATA_PREFIX + "precision"] = config.precision
    return model


def _check(package: Path, config: ProjectorPackageConfig) -> None:
    """Input, output, ops and weights, read back.

    Raises:
        ExportError: one of them is otherwise; it is named.
    """
    spec = read_spec(package)
    sized = by_size(config.vision.image_size, config.further_sizes)
    configs = {name: config.of_size(size) for name, size in sized.items()}
    check_functions(package, spec, {name: (c.input, c.output) for name, c in configs.items()})
    kinds = op_counts(spec)
    if unexpected := kinds.keys() - PROJECTOR_OPS:
        raise ExportError(f"{package.name}: unexpected ops {sorted(unexpected)}")
    weights = spec_path(package).parent / "weights" / "weight.bin"
    for operation in operations(spec):
        value = operation.attributes.get("val")
        if value is not None and value.HasField("blobFileValue"):
            values = read_float_blob(weights, value.blobFileValue.offset)
            if values.dtype != np.dtype(config.precision) or not np.isfinite(values).all():
                name = operation.outputs[0].name
                raise ExportError(
                    f"{package.name}: weight {name} is stored in {values.dtype}, or not finite"
                )
