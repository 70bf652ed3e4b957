"""A bundle's files -> something that runs them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_compile.bundle.layout import RuntimeName, coreml_folder, shipped_of
from fastvlm_compile.bundle.manifest import Manifest
from fastvlm_compile.errors import ToolError
from fastvlm_compile.plan_variants import onnx_graphs
from validation.runtimes.base import Runtime
from validation.runtimes.core_ml_paths import CoreMLPaths, packages_in_folder

if TYPE_CHECKING:
    from validation.runtimes.onnxruntime_runtime import GraphPaths


def _nothing() -> None:
    """All is open, and stays."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A variant that is about to answer one question.

    Attributes:
        runtime: what computes.
        after_images: to be called when all images are encoded: lets go of the tower where its
            memory can be used for the decoder, which is opened then.
    """

    runtime: Runtime
    after_images: Callable[[], None] = _nothing


def open_runtime(
    bundle: Path, manifest: Manifest, runtime: RuntimeName, variant: str, *, images: bool
) -> Opened:
    """Opens a variant that is there, for a question with images or without.

    Raises:
        ToolError: the runtime is not installed.
        CoreMLUnavailableError: Core ML is asked for where there is none.
        UserError: a file is damaged.
    """
    try:
        if runtime == "torch":
            from validation.runtimes.torch_runtime import open_torch

            return Opened(runtime=open_torch(bundle / "torch"))
        if runtime == "onnxruntime":
            return _open_onnx(bundle, variant, images=images)
        if runtime == "mlx":
            from validation.runtimes.mlx_runtime import open_mlx

            return Opened(runtime=open_mlx(bundle / "mlx" / variant))
        packages = packages_of(bundle, manifest, variant)
        return Opened(runtime=_open_packages(packages, runtime, variant))
    except ModuleNotFoundError as error:
        raise ToolError(
            f"--runtime {runtime} needs {error.name}, which is not installed",
            hint="`fastvlm-compile doctor` tells what is missing and how to get it",
        ) from error


def packages_of(bundle: Path, manifest: Manifest, precision: str) -> CoreMLPaths:
    """Where the Core ML form in a precision lies."""
    shipped = [variant.variant for variant in shipped_of(manifest.variants, "coreml")]
    return packages_in_folder(bundle / coreml_folder(shipped, precision))


def graphs_of(bundle: Path, variant: str) -> "GraphPaths":
    """Where the ONNX graphs of a variant lie."""
    from validation.runtimes.onnxruntime_runtime import GraphPaths

    vision, embedding, decoder = (
        bundle / "onnx" / f"{graph}.onnx" for graph in onnx_graphs(variant)
    )
    return GraphPaths(vision_encoder=vision, embed_tokens=embedding, decoder_model_merged=decoder)


def _open_onnx(bundle: Path, variant: str, *, images: bool) -> Opened:
    from validation.runtimes.onnxruntime_runtime import OnnxRuntime

    runtime = OnnxRuntime(graphs_of(bundle, variant), brief_vision=True)
    # Opened now, so that the time to first token is the model's and not the disk's.
    _ = runtime.embed_graph
    if images:
        _ = runtime.vision_graph

    def after_images() -> None:
        runtime.close("vision_graph")
        _ = runtime.decoder

    return Opened(runtime=runtime, after_images=after_images)


def _open_packages(
    paths: CoreMLPaths, runtime: Literal["ml_program", "coreml"], variant: str
) -> Runtime:
    if runtime == "coreml":
        from validation.runtimes.coreml_runtime import CoreMLRuntime

        core_ml = CoreMLRuntime(paths)
        _ = core_ml.vision, core_ml.projector, core_ml.table, core_ml.decoder
        return core_ml
    from validation.runtimes.ml_program_runtime import MLProgramRuntime

    # A device keeps float16 values in float16; without rounding they would be better than there.
    opened = MLProgramRuntime(paths, rounding="none" if variant == "float32" else "fp16")
    _ = opened.vision, opened.projector, opened.table, opened.decoder
    return opened
