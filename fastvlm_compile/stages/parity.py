"""Stages `parity.*`: measure what was built against the goldens. Thresholds are not known here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_compile.progress import Progress
from reference.kept import NOTHING_KEPT, Kept

if TYPE_CHECKING:
    from validation.goldens import Goldens
    from validation.substituted_goldens import SubstitutedGoldens

PARITY_FILE = "parity.json"


@dataclass(frozen=True, kw_only=True)
class OnnxParityConfig:
    """How ONNX graphs are measured.

    Attributes:
        variant: the name under which the measurements are filed.
        logits: what the decoder was built to return.
        suffix, vision_suffix: what stands between a graph's name and `.onnx`.
        left_padding: whether the decoder takes sequences of different lengths at once.
        rtol, atol: the smallest atol is reported at this rtol, the smallest rtol at this atol.
        threads: of onnxruntime; 0 lets it choose.
    """

    variant: str = "fp32"
    logits: Literal["last", "full"]
    suffix: str = ""
    vision_suffix: str = ""
    left_padding: bool = True
    rtol: float = 1e-4
    atol: float = 1e-5
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class CoreMLParityConfig:
    """How Core ML packages are measured.

    Attributes:
        variant: the name under which the measurements are filed.
        precision: of the packages' arithmetic.
        max_questions: of the goldens' task questions that are asked; -1 for all.
        rtol, atol: as in `OnnxParityConfig`.
    """

    variant: str
    max_questions: int = -1
    precision: Literal["float16", "float32"]
    rtol: float = 1e-2
    atol: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class ReferenceParityConfig:
    """How a quantized reference is measured.

    Attributes:
        variant: the quantization's name, under which the measurements are filed.
        rtol, atol: as in `OnnxParityConfig`.
    """

    variant: str
    rtol: float = 1e-2
    atol: float = 1e-3


def reference(
    config: ReferenceParityConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Runs the reference with dequantized weights; writes `parity.json`: what quantization costs.

    Beside it, `outputs.safetensors` has what it returned, by the names of the goldens' arrays, and
    `layers.json` the error behind every layer.

    Args:
        config: see `ReferenceParityConfig`.
        inputs: `golden`, `checkpoint` (its `processor/`), `weights`, a checkpoint in any layout,
            and its quantized tensors: `quantized_language`, maybe `quantized_vision`.
        out: an empty directory.
        progress: told of every image, case, task scene and layer.
        kept: what was computed before a kill.
    """
    from fastvlm_compile.quantize.source import DequantizedCheckpoint
    from fastvlm_compile.quantize.weights_file import open_quantized
    from reference.budget import FEW_RESIDENT_BYTES
    from reference.checkpoint.tensors import open_checkpoint
    from reference.loading import build
    from reference.prompt import load_tokenizer
    from validation.golden_file import open_goldens
    from validation.layer_curves import LAYERS_FILE, LayerReport, write_layers
    from validation.layer_errors import measure_layers
    from validation.package_outputs import write_outputs
    from validation.parity_file import ParityReport, write_parity
    from validation.quantized_reference import measure_reference
    from validation.tensor_parity import Tolerance

    parts = [inputs[role] for role in sorted(inputs) if role.startswith("quantized_")]
    checkpoint = open_checkpoint(inputs["weights"])
    quantized = DequantizedCheckpoint(checkpoint=checkpoint, quantized=open_quantized(*parts))
    budget = FEW_RESIDENT_BYTES
    models = (build(quantized, resident_bytes=budget), build(checkpoint, resident_bytes=budget))
    goldens = open_goldens(inputs["golden"])
    measurements, outputs = measure_reference(
        *models,
        variant=config.variant,
        tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
        goldens=goldens,
        tokenizer=load_tokenizer(inputs["checkpoint"] / "processor"),
        progress=progress,
        kept=kept,
    )
    write_outputs(out, outputs)
    curve = measure_layers(
        *models,
        variant=config.variant,
        executor=outputs.executor,
        goldens=goldens,
        progress=progress,
        kept=kept.part("layers"),
    )
    write_layers(out / LAYERS_FILE, LayerReport(curves=(curve,)))
    write_parity(out / PARITY_FILE, ParityReport(measurements=measurements))


def onnx(
    config: OnnxParityConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Runs the three graphs in onnxruntime on the goldens and writes `parity.json`.

    Args:
        config: see `OnnxParityConfig`.
        inputs: `golden`, `checkpoint` (its `processor/`), and the graphs' directories
            `vision_encoder`, `embed_tokens`, `decoder_model_merged`. Where weights are quantized
            also `reference`, the stage that ran the reference with the same ones.
        out: an empty directory.
        progress: told of every comparison.
    """
    from reference.prompt import load_tokenizer
    from validation.golden_file import open_goldens
    from validation.onnx_parity import OnnxParity, measure_onnx
    from validation.parity_file import ParityReport, write_parity
    from validation.runtimes.onnxruntime_runtime import OnnxRuntime, graphs_in_stages
    from validation.tensor_parity import Tolerance

    goldens = open_goldens(inputs["golden"])
    paths = graphs_in_stages(inputs, suffix=config.suffix, vision_suffix=config.vision_suffix)
    dequantized = _dequantized(goldens, inputs)
    measurements = measure_onnx(
        OnnxParity(
            variant=config.variant,
            logits=config.logits,
            tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
            left_padding=config.left_padding,
            dequantized=dequantized,
        ),
        goldens=goldens,
        runtime=OnnxRuntime(
            paths, threads=config.threads, lean=dequantized is None, brief_vision=True
        ),
        tokenizer=load_tokenizer(inputs["checkpoint"] / "processor"),
        progress=progress,
    )
    write_parity(out / PARITY_FILE, ParityReport(measurements=measurements))


@dataclass(frozen=True, kw_only=True)
class MlxParityConfig:
    """How an MLX folder is measured.

    Attributes:
        variant: the name under which the measurements are filed.
        max_questions: of the goldens' task questions that are asked; -1 for all.
        max_images: of the goldens' images that are encoded; None for all.
        rtol, atol: as in `OnnxParityConfig`.
    """

    variant: str
    max_questions: int = -1
    max_images: int | None = None
    rtol: float = 1e-2
    atol: float = 1e-3


def mlx(
    config: MlxParityConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Runs the folder in mlx, in float32 arithmetic, on the goldens and writes `parity.json`.

    Args:
        config: see `MlxParityConfig`.
        inputs: `golden`, `checkpoint` (its `processor/`), and `model`, the folder. Where weights
            are quantized also `reference`, as for `onnx`.
        out: an empty directory.
        progress: told of every comparison.
        kept: what was computed before a kill.
    """
    from reference.prompt import load_tokenizer
    from validation.golden_file import open_goldens
    from validation.parity_file import ParityReport, write_parity
    from validation.runtime_parity import RuntimeParity, measure_runtime
    from validation.runtimes.mlx_runtime import open_mlx
    from validation.tensor_parity import Tolerance

    goldens = open_goldens(inputs["golden"])
    measurements = measure_runtime(
        RuntimeParity(
            target="mlx",
            variant=config.variant,
            tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
            dequantized=_dequantized(goldens, inputs),
            max_questions=config.max_questions,
            max_images=config.max_images,
        ),
        goldens=goldens,
        runtime=open_mlx(inputs["model"]),
        tokenizer=load_tokenizer(inputs["checkpoint"] / "processor"),
        progress=progress,
        kept=kept,
    )
    write_parity(out / PARITY_FILE, ParityReport(measurements=measurements))


def coreml(
    config: CoreMLParityConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Runs the packages in Core ML, or else in the ML Program executor; writes `parity.json`.

    Beside it, `outputs.safetensors` has what float32 packages returned.

    Args:
        config: see `CoreMLParityConfig`.
        inputs: `golden`, `checkpoint` (its `processor/`), and the directories of the packages:
            `vision`, and for the whole model `projector`, `embedding` and `decoder`. For float16
            maybe `float32`, the output of this stage for the float32 packages; for compressed
            packages `reference`, as for `onnx`.
        out: an empty directory.
        progress: told of every comparison.
        kept: what each package of the decoder returned before a kill.
    """
    from reference.prompt import load_tokenizer
    from validation.coreml_parity import (
        NO_SIBLING,
        CoreMLParity,
        dequantized_outputs,
        measure_coreml,
    )
    from validation.golden_file import open_goldens
    from validation.package_outputs import read_outputs, write_outputs
    from validation.parity_file import ParityReport, write_parity
    from validation.runtimes.core_ml_executor import Packages
    from validation.runtimes.core_ml_paths import VISION, packages_in_stages
    from validation.tensor_parity import Tolerance

    goldens = open_goldens(inputs["golden"])
    dequantized = _dequantized(goldens, inputs)
    sibling = read_outputs(inputs["float32"]) if "float32" in inputs else NO_SIBLING
    if dequantized is not None:
        sibling = dequantized_outputs(dequantized)
    measured = measure_coreml(
        CoreMLParity(
            tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
            sibling=sibling,
            max_questions=config.max_questions,
        ),
        goldens=goldens,
        packages=Packages(
            vision=inputs["vision"] / VISION,
            whole=packages_in_stages(inputs) if "decoder" in inputs else None,
            precision=config.precision,
            compressed="" if dequantized is None else config.variant,
        ),
        tokenizer=load_tokenizer(inputs["checkpoint"] / "processor"),
        progress=progress,
        kept=kept,
    )
    if measured.outputs is not None and config.precision == "float32":
        write_outputs(out, measured.outputs)
    write_parity(out / PARITY_FILE, ParityReport(measurements=measured.measurements))


def _dequantized(goldens: "Goldens", inputs: Mapping[str, Path]) -> "SubstitutedGoldens | None":
    """What the reference with the same quantized weights returned, where there is one."""
    from validation.package_outputs import PackageOutputs, read_outputs
    from validation.substituted_goldens import SubstitutedGoldens

    if "reference" not in inputs:
        return None
    outputs = read_outputs(inputs["reference"])
    assert isinstance(outputs, PackageOutputs), "the reference always runs"
    return SubstitutedGoldens(goldens, outputs.arrays)
