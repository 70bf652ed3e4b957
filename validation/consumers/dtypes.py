"""Which `dtype` of transformers.js means which variant of a bundle."""

from collections.abc import Sequence
from pathlib import PurePosixPath

GRAPHS = ("vision_encoder", "embed_tokens", "decoder_model_merged")

_DTYPES = {"": "fp32", "_fp16": "fp16", "_quantized": "q8", "_q4": "q4"}
"""Suffix -> dtype. Source: `DEFAULT_DTYPE_SUFFIX_MAPPING` of transformers.js 4."""

UNNAMED = "transformers.js has no dtype for the names of its files"
"""Why some variants cannot reach it."""


def dtypes_of(files: Sequence[str]) -> dict[str, str] | None:
    """Graph -> dtype of a variant's files; None where one of them has no dtype's name."""
    stems = [PurePosixPath(file).stem for file in files if file.endswith(".onnx")]
    found: dict[str, str] = {}
    for graph in GRAPHS:
        suffixes = [stem.removeprefix(graph) for stem in stems if stem.startswith(graph)]
        named = [_DTYPES[suffix] for suffix in suffixes if suffix in _DTYPES]
        if not named:
            return None
        found[graph] = named[0]
    return found


def min_agreement(variant: str) -> float:
    """Least share of tokens that onnxruntime gives here from the same graphs.

    float32 must say what the reference says. Beside it, the onnxruntime of another version or of
    WebAssembly has kernels that round otherwise, and may turn a token between two that are nearly
    as likely.
    """
    return 1.0 if variant == "fp32" else 0.9
