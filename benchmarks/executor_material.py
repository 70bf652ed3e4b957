"""What the executor is measured with: a made-up 0.5B checkpoint and packages of it."""

from pathlib import Path
from typing import Literal

from fastvlm_compile.checkpoint.synthesize import plan_size, write_checkpoint
from fastvlm_compile.export.coreml.compress.packages import compress_decoder
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.run import quantize_checkpoint
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.stages.coreml import CoreMLVisionConfig, vision
from fastvlm_compile.stages.coreml_language import CoreMLDecoderConfig, decoder
from reference.checkpoint.tensors import open_checkpoint

Precision = Literal["float32", "float16"]

PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
IMAGE_SIZE = 1024
CONTEXT_LENGTH = 1024
PREFILL_CHUNK = 128
MAX_CHUNK_MB = 900.0

CHECKPOINT = "checkpoint"
COMPRESSED = "int4"
_QUANTIZED = "quantized"


def find_material(folder: Path) -> Path:
    """Export what is not there yet.

    Args:
        folder: gets `checkpoint/`; `float32/` and `float16/` with the tower and the decoder; and
            `int4/`, the float16 decoder with its layers in 4 bits.
    """
    checkpoint = _begun(folder / CHECKPOINT)
    if checkpoint is not None:
        write_checkpoint(plan_size("0.5b", "apple"), 0, checkpoint, silent)
    weights = {"weights": folder / CHECKPOINT}
    for precision in PRECISIONS:
        out = _begun(folder / precision)
        if out is not None:
            tower = CoreMLVisionConfig(image_size=IMAGE_SIZE, precision=precision)
            vision(tower, weights, out, silent)
            language = CoreMLDecoderConfig(
                context_length=CONTEXT_LENGTH,
                prefill_chunk=PREFILL_CHUNK,
                max_chunk_mb=MAX_CHUNK_MB,
                precision=precision,
            )
            decoder(language, weights, out, silent)
    out = _begun(folder / COMPRESSED)
    if out is not None:
        _compress(folder, out)
    return folder


def _begun(folder: Path) -> Path | None:
    """The folder, made now; None if it was there."""
    if folder.exists():
        return None
    folder.mkdir(parents=True)
    return folder


def _compress(folder: Path, out: Path) -> None:
    checkpoint = open_checkpoint(folder / CHECKPOINT)
    choice = Choice(scheme=Affine(bits=4, block_size=32, symmetric=True), method="round_to_nearest")
    choices = {
        name: choice
        for name, info in checkpoint.tensors.items()
        if role_of(name, info.shape) == "language"
    }
    (folder / _QUANTIZED).mkdir()
    quantized = quantize_checkpoint(checkpoint, choices, None, folder / _QUANTIZED, silent)
    source = folder / "float16"
    compress_decoder(source, quantized, out, silent, tied=checkpoint.tied)
