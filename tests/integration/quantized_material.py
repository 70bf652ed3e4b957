"""Quantized artifacts of the trained tiny model for every target, to be damaged."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.corruptions.artifacts import Target
from fastvlm_compile.corruptions.bench import make_bench, open_artifacts, open_references
from fastvlm_compile.corruptions.matrix import Bench
from fastvlm_compile.export.coreml.compress.embedding import compress_embedding
from fastvlm_compile.export.coreml.compress.packages import (
    compress_decoder,
    compress_projector,
    compress_vision,
)
from fastvlm_compile.export.mlx.export import MlxExport, export_mlx
from fastvlm_compile.export.onnx.decoder import DecoderGraphConfig
from fastvlm_compile.export.onnx.export import VisionGraphConfig
from fastvlm_compile.export.onnx.export_variants import (
    export_quantized_decoder,
    export_quantized_embedding,
)
from fastvlm_compile.export.onnx.vision_qdq import export_quantized_vision
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.affine import search
from fastvlm_compile.quantize.methods import relative_error
from fastvlm_compile.quantize.palettize import palettize
from fastvlm_compile.quantize.roles import Role, role_of
from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized
from fastvlm_compile.quantize.weights_file import (
    QuantizedEntry,
    QuantizedWeights,
    open_quantized,
    write_index,
    write_tensor,
)
from fastvlm_compile.stages.coreml import CoreMLVisionConfig, vision
from fastvlm_compile.stages.coreml_language import (
    CoreMLDecoderConfig,
    CoreMLEmbeddingConfig,
    CoreMLProjectorConfig,
    decoder,
    embedding,
    projector,
)
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.loading import load
from reference.prompt import load_tokenizer
from validation.golden_file import open_goldens
from validation.golden_inputs import golden_inputs
from validation.golden_plan import GoldenPlan
from validation.golden_run import run_reference
from validation.goldens import Goldens

CHECKPOINT = Path(__file__).parents[2] / "recipes/tiny-checkpoint"
CONTEXT_LENGTH = 128
IMAGE_SIZE = 256
OPSET = 21

INT8 = Affine(bits=8, block_size=0, symmetric=True)
INT8_BLOCKS = Affine(bits=8, block_size=64, symmetric=True)
INT4 = Affine(bits=4, block_size=32, symmetric=True)
INT4_WIDE = Affine(bits=4, block_size=64, symmetric=True)
OFFSETS = Affine(bits=4, block_size=32, symmetric=False)
LUT4 = Palette(bits=4, group_size=16)
LUT4_SCALED = Palette(bits=4, group_size=16, channel_scale=True)
LUT6 = Palette(bits=6, group_size=16)

_VISION: tuple[Role, ...] = ("vision_linear", "vision_pointwise", "vision_dense", "projector")
_LANGUAGE: tuple[Role, ...] = ("language", "head", "embedding")

SCHEMES: Mapping[Target, Mapping[tuple[Role, ...], tuple[Quantized, ...]]] = {
    "onnx": {_VISION: (INT8,), _LANGUAGE: (INT4, OFFSETS)},
    "coreml": {_VISION: (LUT6, INT8), _LANGUAGE: (INT4, LUT4, OFFSETS, LUT4_SCALED)},
    "mlx": {("projector", "language"): (INT4_WIDE,), ("head", "embedding"): (INT8_BLOCKS,)},
}
"""Each layer gets the next of its schemes, so that all forms are in a few files."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a bench is made of, on disk."""

    folder: Path
    quantized: Path
    goldens: Path
    bench: Bench


def make_goldens(out: Path) -> Goldens:
    """Few images, and prompts of which one fills the context."""
    plan = GoldenPlan(
        image_size=IMAGE_SIZE,
        fit="pad",
        image_position="before",
        scenes=1,
        photographs=1,
        prompts=("Describe the image.",),
        max_new_tokens=6,
        task_questions=0,
        context_to_fill=CONTEXT_LENGTH,
        image_sizes=(),
    )
    out.mkdir(parents=True)
    run_reference(load(CHECKPOINT), load_tokenizer(CHECKPOINT), golden_inputs(plan), out, silent)
    return open_goldens(out)


def make_material(target: Target, root: Path, goldens: Goldens) -> Material:
    """Quantize, export, and open a bench for one target."""
    checkpoint = open_checkpoint(CHECKPOINT)
    quantized = quantize(checkpoint, target, root / "quantized")
    out = root / target
    out.mkdir()
    _EXPORTS[target](checkpoint, quantized, goldens, out)
    tokenizer = load_tokenizer(CHECKPOINT)
    references = open_references(checkpoint, quantized, goldens, tokenizer, silent)
    artifacts = open_artifacts(out, checkpoint, quantized, variant="int4")
    return Material(
        folder=out,
        quantized=root / "quantized",
        goldens=goldens.directory,
        bench=make_bench(artifacts, checkpoint, quantized, references),
    )


def quantize(checkpoint: Checkpoint, target: Target, out: Path) -> QuantizedWeights:
    """Every tensor of the roles that the target quantizes, without calibration."""
    out.mkdir(parents=True)
    entries = {}
    for roles, schemes in SCHEMES[target].items():
        names = [
            name for name, info in checkpoint.tensors.items() if role_of(name, info.shape) in roles
        ]
        for number, name in enumerate(names):
            weight = checkpoint.read(name).float().numpy()
            layer = name.rpartition("layers.")[2].partition(".")[0]
            turn = int(layer) if layer.isdigit() else number
            scheme = schemes[turn % len(schemes)]
            if isinstance(scheme, Palette):
                tensor = palettize(weight, scheme)
            else:
                tensor = search(weight, scheme)
            write_tensor(out, name, tensor)
            entries[name] = QuantizedEntry(
                scheme=scheme,
                shape=tensor.shape,
                method="search",
                relative_error=relative_error(weight, tensor),
                size_bytes=tensor.size_bytes,
            )
    write_index(out, entries)
    return open_quantized(out)


def _onnx(checkpoint: Checkpoint, quantized: QuantizedWeights, goldens: Goldens, out: Path) -> None:
    text = checkpoint.config.text
    config = DecoderGraphConfig(text=text, tied=checkpoint.tied, logits="full", opset=OPSET)
    export_quantized_decoder(
        config, checkpoint, quantized, out, silent, variant="int4", context_length=CONTEXT_LENGTH
    )
    export_quantized_embedding(quantized, out, silent, opset=OPSET, variant="int4")
    export_quantized_vision(
        VisionGraphConfig(
            vision=checkpoint.config.vision, hidden_size=text.hidden_size, opset=OPSET
        ),
        checkpoint,
        quantized,
        out,
        silent,
        calibration_images=[goldens.pixel_values(name) for name in goldens.index.image_ids],
    )


def _coreml(
    checkpoint: Checkpoint, quantized: QuantizedWeights, goldens: Goldens, out: Path
) -> None:
    del goldens
    floats = out.with_name("float16")
    floats.mkdir()
    weights = {"weights": CHECKPOINT}
    vision(CoreMLVisionConfig(image_size=IMAGE_SIZE, precision="float16"), weights, floats, silent)
    projector(
        CoreMLProjectorConfig(image_size=IMAGE_SIZE, precision="float16"), weights, floats, silent
    )
    embedding(CoreMLEmbeddingConfig(precision="float16"), weights, floats, silent)
    sizes = CoreMLDecoderConfig(
        context_length=CONTEXT_LENGTH, prefill_chunk=32, max_chunk_mb=1000, precision="float16"
    )
    decoder(sizes, weights, floats, silent)
    compress_vision(floats, quantized, out, silent)
    compress_projector(floats, quantized, out, silent)
    compress_embedding(floats, quantized, out, silent)
    compress_decoder(floats, quantized, out, silent, tied=checkpoint.tied)


def _mlx(checkpoint: Checkpoint, quantized: QuantizedWeights, goldens: Goldens, out: Path) -> None:
    del goldens
    export_mlx(MlxExport(layout="mlx_vlm"), checkpoint, quantized, out, silent)


_EXPORTS = {"onnx": _onnx, "coreml": _coreml, "mlx": _mlx}
