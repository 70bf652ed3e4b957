"""Stages `parity.*`: measure what was built against the goldens. Thresholds are not known here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress

PARITY_FILE = "parity.json"


@dataclass(frozen=True, kw_only=True)
class OnnxParityConfig:
    """How ONNX graphs are measured.

    Attributes:
        variant: the name under which the measurements are filed.
        logits: what the decoder was built to return.
        rtol, atol: the smallest atol is reported at this rtol, the smallest rtol at this atol.
        threads: of onnxruntime; 0 lets it choose.
    """

    variant: str = "fp32"
    logits: Literal["last", "full"]
    rtol: float = 1e-4
    atol: float = 1e-5
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class CoreMLParityConfig:
    """How Core ML packages are measured.

    Attributes:
        precision: of the packages; the measurements are filed under it.
        rtol, atol: as in `OnnxParityConfig`.
    """

    precision: Literal["float16", "float32"]
    rtol: float = 1e-2
    atol: float = 1e-3


def onnx(
    config: OnnxParityConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Runs the three graphs in onnxruntime on the goldens and writes `parity.json`.

    Args:
        config: see `OnnxParityConfig`.
        inputs: `golden`, `checkpoint` (its `processor/`), and the graphs' directories
            `vision_encoder`, `embed_tokens`, `decoder_model_merged`.
        out: an empty directory.
        progress: told of every comparison.
    """
    from reference.prompt import load_tokenizer
    from validation.golden_file import open_goldens
    from validation.onnx_parity import OnnxParity, measure_onnx
    from validation.parity_file import ParityReport, write_parity
    from validation.runtimes.onnxruntime_runtime import OnnxRuntime, graphs_in_stages
    from validation.tensor_parity import Tolerance

    measurements = measure_onnx(
        OnnxParity(
            variant=config.variant,
            logits=config.logits,
            tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
        ),
        goldens=open_goldens(inputs["golden"]),
        runtime=OnnxRuntime(graphs_in_stages(inputs), threads=config.threads),
        tokenizer=load_tokenizer(inputs["checkpoint"] / "processor"),
        progress=progress,
    )
    write_parity(out / PARITY_FILE, ParityReport(measurements=measurements))


def coreml(
    config: CoreMLParityConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Runs the packages in Core ML, or else in the ML Program executor; writes `parity.json`.

    Beside it, `outputs.safetensors` has what float32 packages returned.

    Args:
        config: see `CoreMLParityConfig`.
        inputs: `golden`, `checkpoint` (its `processor/`), and the directories of the packages:
            `vision`, and for the whole model `projector`, `embedding` and `decoder`. For float16
            maybe `float32`, the output of this stage for the float32 packages.
        out: an empty directory.
        progress: told of every comparison.
    """
    from reference.prompt import load_tokenizer
    from validation.coreml_parity import NO_SIBLING, CoreMLParity, measure_coreml
    from validation.golden_file import open_goldens
    from validation.package_outputs import read_outputs, write_outputs
    from validation.parity_file import ParityReport, write_parity
    from validation.runtimes.core_ml_executor import Packages
    from validation.runtimes.core_ml_paths import VISION, packages_in_stages
    from validation.tensor_parity import Tolerance

    measured = measure_coreml(
        CoreMLParity(
            tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
            sibling=read_outputs(inputs["float32"]) if "float32" in inputs else NO_SIBLING,
        ),
        goldens=open_goldens(inputs["golden"]),
        packages=Packages(
            vision=inputs["vision"] / VISION,
            whole=packages_in_stages(inputs) if "decoder" in inputs else None,
            precision=config.precision,
        ),
        tokenizer=load_tokenizer(inputs["checkpoint"] / "processor"),
        progress=progress,
    )
    if measured.outputs is not None and config.precision == "float32":
        write_outputs(out, measured.outputs)
    write_parity(out / PARITY_FILE, ParityReport(measurements=measured.measurements))
