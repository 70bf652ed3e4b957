"""Decoder and embedding of a variant are no larger than it is called: each, or as one budget."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.stages.onnx_variants import OnnxVariantLanguageConfig, check_language_bytes
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD

TABLE = (40_000, 900)
LINEAR = (4000, 9000)
"""As many weights in each of the three: 36 million."""


@dataclass(frozen=True)
class Info:
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """All that is asked of a checkpoint."""

    tied: bool
    tensors: dict[str, Info] = field(default_factory=dict)


def shapes(*, tied: bool) -> Shapes:
    linear = {"model.layers.0.mlp.up_proj.weight": Info(LINEAR)}
    head = {} if tied else {LM_HEAD: Info(TABLE)}
    return Shapes(tied=tied, tensors={EMBED_TOKENS: Info(TABLE), **linear, **head})


def write(folder: Path, suffix: str, *, decoder_bits: float, embedding_bits: float) -> None:
    """Files of so many bits a weight that take no room."""
    weights = {"decoder_model_merged": (72_000_000, decoder_bits)}
    weights["embed_tokens"] = (36_000_000, embedding_bits)
    for stem, (count, bits) in weights.items():
        with (folder / f"{stem}{suffix}.onnx_data").open("wb") as file:
            file.truncate(int(count * bits / 8))


def check(folder: Path, variant: str, *, tied: bool) -> None:
    config = OnnxVariantLanguageConfig(
        opset=21, logits="last", variant=variant, context_length=64, max_bits_per_weight=5.1
    )
    check_language_bytes(config, shapes(tied=tied), folder)  # type: ignore[arg-type]


def test_each_graph_keeps_to_the_bits_of_a_preset(tmp_path: Path) -> None:
    write(tmp_path, "_q4", decoder_bits=5.0, embedding_bits=5.0)
    check(tmp_path, "int4", tied=False)
    write(tmp_path, "_q4", decoder_bits=5.3, embedding_bits=4.5)
    with pytest.raises(ExportError, match=r"decoder_model_merged_q4\.onnx_data: 5\.30 bits"):
        check(tmp_path, "int4", tied=False)
    write(tmp_path, "_q4", decoder_bits=4.5, embedding_bits=8.5)
    with pytest.raises(ExportError, match=r"embed_tokens_q4\.onnx_data: 8\.50 bits"):
        check(tmp_path, "int4", tied=False)


def test_the_budget_of_mixed_is_one_for_both_graphs(tmp_path: Path) -> None:
    write(tmp_path, "_mixed", decoder_bits=5.3, embedding_bits=4.5)
    check(tmp_path, "mixed", tied=False)
    write(tmp_path, "_mixed", decoder_bits=5.3, embedding_bits=5.3)
    with pytest.raises(ExportError, match=r"decoder_.*, embed_tokens.*: 5\.30 bits"):
        check(tmp_path, "mixed", tied=False)


def test_a_tied_embedding_counts_once_in_the_budget_of_mixed(tmp_path: Path) -> None:
    write(tmp_path, "_mixed", decoder_bits=5.0, embedding_bits=8.5)
    check(tmp_path, "mixed", tied=True)
    write(tmp_path, "_mixed", decoder_bits=5.3, embedding_bits=0.1)
    with pytest.raises(ExportError, match=r"decoder_model_merged_mixed\.onnx_data: 5\.30 bits"):
        check(tmp_path, "mixed", tied=True)
