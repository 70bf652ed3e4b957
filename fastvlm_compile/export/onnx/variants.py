"""What a variant's files are called, and the proof that they earn the name."""

import math
from collections.abc import Sequence
from pathlib import Path

from fastvlm_compile.export.errors import ExportError, UnsupportedExportError

VARIANT_SUFFIXES = {
    "fp32": "",
    "fp16": "_fp16",
    "int8": "_quantized",
    "int4": "_q4",
    "int4-fast": "_q4_fast",
    "mixed": "_mixed",
}
"""What stands between a graph's name and `.onnx`.

The first four are those that transformers.js 4.x looks for under its dtypes `fp32`, `fp16`, `q8`
and `q4`. It knows no name for the last two; they are ours, and reach it only under another name.
"""


def variant_suffix(variant: str) -> str:
    """The suffix of a variant's files.

    Raises:
        UnsupportedExportError: ONNX has no such variant.
    """
    if variant not in VARIANT_SUFFIXES:
        raise UnsupportedExportError(
            f"ONNX has no variant `{variant}`",
            hint=f"variants of ONNX: {', '.join(VARIANT_SUFFIXES)}",
        )
    return VARIANT_SUFFIXES[variant]


def check_variant_bytes(
    files: Sequence[Path], *, num_weights: int, max_bits_per_weight: float
) -> float:
    """Refuse files that are larger than their name says; return their bits per weight.

    Args:
        files: all files of one graph, the graph itself included. A file that another graph shares
            counts where it is named.
        num_weights: numbers that the files encode, each once: a tied head that is stored beside
            the embedding it shares makes them larger and nothing more.
        max_bits_per_weight: the limit, of bytes on disk with everything in them.

    Raises:
        ExportError: the files are larger.
    """
    size_bytes = sum(path.stat().st_size for path in files)
    found = 8 * size_bytes / num_weights if num_weights > 0 else math.nan
    if not found <= max_bits_per_weight:
        names = ", ".join(path.name for path in files)
        raise ExportError(
            f"{names}: {found:.2f} bits per weight, more than the {max_bits_per_weight:.2f} that "
            f"the name promises ({size_bytes} bytes for {num_weights} weights)"
        )
    return found
