"""From folders on disk to a bench: artifacts recognised, and the reference run once."""

from dataclasses import replace
from pathlib import Path

from fastvlm_compile.corruptions.artifacts import Artifacts, CorruptionInputError, References
from fastvlm_compile.corruptions.coreml import open_coreml
from fastvlm_compile.corruptions.limits import gates_of
from fastvlm_compile.corruptions.matrix import Bench
from fastvlm_compile.corruptions.mlx import CONFIG, open_mlx_folder
from fastvlm_compile.corruptions.onnx import open_onnx
from fastvlm_compile.corruptions.stale import stale_of
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.source import DequantizedCheckpoint
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.tensors import Checkpoint
from reference.loading import build
from reference.prompt import PromptTokenizer
from validation.goldens import Goldens
from validation.quantized_reference import measure_reference
from validation.runtimes.core_ml_paths import LANGUAGE
from validation.substituted_goldens import SubstitutedGoldens
from validation.tensor_parity import Tolerance


def open_artifacts(
    folder: Path, checkpoint: Checkpoint, quantized: QuantizedWeights, *, variant: str
) -> Artifacts:
    """Whatever target's files a folder holds.

    Args:
        folder: a bundle's `onnx`, `coreml/<variant>` or `mlx/<variant>`.
        checkpoint: the weights.
        quantized: the tensors that the files were made from.
        variant: which of several ONNX variants.

    Raises:
        CorruptionInputError: it is none of these.
        UserError: a part is missing or damaged.
    """
    if (folder / LANGUAGE).is_file():
        return open_coreml(folder, quantized, tied=checkpoint.tied)
    if any(folder.glob("*.onnx")):
        return open_onnx(folder, quantized, variant=variant, tied=checkpoint.tied)
    if (folder / CONFIG).is_file():
        return open_mlx_folder(folder, quantized, tied=checkpoint.tied)
    raise CorruptionInputError(
        f"{folder}: neither packages with {LANGUAGE}, nor graphs, nor weights for MLX",
        hint="give a bundle's `onnx`, `coreml/<variant>` or `mlx/<variant>`",
    )


def open_references(
    checkpoint: Checkpoint,
    quantized: QuantizedWeights,
    goldens: Goldens,
    tokenizer: PromptTokenizer,
    progress: Progress,
) -> References:
    """The goldens without what they ask of whole answers, and the quantized reference on them."""
    cases = tuple(replace(case, generated=False) for case in goldens.index.cases)
    index = replace(goldens.index, cases=cases, questions=())
    asked = Goldens(goldens.directory, index)
    model = build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized))
    _, outputs = measure_reference(
        model,
        model,  # the original is for questions, of which none are left
        variant="quantized",
        tolerance=Tolerance(rtol=1e-2, atol=1e-3),
        goldens=asked,
        tokenizer=tokenizer,
        progress=progress,
    )
    return References(goldens=asked, dequantized=SubstitutedGoldens(asked, outputs.arrays))


def make_bench(
    artifacts: Artifacts,
    checkpoint: Checkpoint,
    quantized: QuantizedWeights,
    references: References,
) -> Bench:
    """With the gates of the target."""
    return Bench(
        artifacts=artifacts,
        references=references,
        gates=gates_of(artifacts.target),
        stale=stale_of(checkpoint, quantized),
    )
