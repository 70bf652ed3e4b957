"""What the tests of the decoder's packages share besides fixtures."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fastvlm_compile.export.coreml.canonical import read_spec, spec_path
from fastvlm_compile.export.coreml.language.plan import DecoderConfig
from fastvlm_compile.progress import silent
from fastvlm_compile.stages.coreml_language import CoreMLDecoderConfig, decoder
from reference.checkpoint.tensors import Checkpoint
from reference.fastvlm import FastVLM
from validation.runtimes.chunked_decoder import ChunkedDecoder
from validation.runtimes.language_layout import read_layout
from validation.runtimes.ml_program.executable import Rounding, load
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program_runtime import ExecutedChunk

CONTEXT_LENGTH = 100
PREFILL_CHUNK = 8
CACHE_LENGTH = 128
"""100 rounded up to a multiple of 32."""


def decoder_config(checkpoint: Checkpoint, **changes: object) -> DecoderConfig:
    values = {
        "text": checkpoint.config.text,
        "tied": checkpoint.tied,
        "context_length": CONTEXT_LENGTH,
        "prefill_chunk": PREFILL_CHUNK,
        "max_chunk_mb": 1,
        "precision": "float32",
    }
    return DecoderConfig(**values | changes)  # type: ignore[arg-type]


def export(
    weights: Path,
    out: Path,
    *,
    max_chunk_mb: float = 1,
    precision: Literal["float16", "float32"],
) -> Path:
    """The decoder's packages as a build makes them."""
    out.mkdir()
    config = CoreMLDecoderConfig(
        context_length=CONTEXT_LENGTH,
        prefill_chunk=PREFILL_CHUNK,
        max_chunk_mb=max_chunk_mb,
        precision=precision,
    )
    decoder(config, {"weights": weights}, out, silent)
    return out


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|, written out once more so that the tests stand alone."""
    assert found.shape == expected.shape
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def open_decoder(folder: Path, rounding: Rounding = "none") -> ChunkedDecoder[State]:
    layout = read_layout(folder)
    programs = [
        ExecutedChunk(load(folder / chunk.package, function="prefill"), rounding)
        for chunk in layout.chunks
    ]
    return ChunkedDecoder(layout, programs)


def random_rows(num_rows: int, *, seed: int = 0) -> np.ndarray:
    """[L, H] of the tiny model."""
    return np.random.default_rng(seed).standard_normal((num_rows, 64), dtype=np.float32)


def reference_logits(reference: FastVLM, rows: np.ndarray) -> np.ndarray:
    """After every row: [L, V]."""
    logits, _ = reference.language(torch.from_numpy(rows)[None])
    result: np.ndarray = logits[0].numpy()
    return result


def all_logits(decoder: ChunkedDecoder[State], pieces: list[np.ndarray]) -> np.ndarray:
    """After the last row of every piece, one memory for all: [pieces, V]."""
    memory = decoder.new_memory()
    return np.stack([decoder.append(piece, memory) for piece in pieces])


def corrupted(folder: Path, out: Path, corrupt: Callable[[object], None]) -> Path:
    """A copy of a decoder of one package whose program was changed."""
    shutil.copytree(folder, out)
    package = out / "decoder.mlpackage"
    spec = read_spec(package)
    corrupt(spec)
    spec_path(package).write_bytes(spec.SerializeToString())
    return out
