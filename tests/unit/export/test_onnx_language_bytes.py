"""Decoder and embedding of a variant are no larger than it is called: each, or as one budget."""

from pathlib import Path

import pytest

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.variants import variant_suffix
from fastvlm_compile.stages.onnx_variants import OnnxVariantLanguageConfig, check_language_bytes
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD

STEMS = ("decoder_model_merged", "embed_tokens")
TABLE = (40_000, 900)
LINEAR = (4000, 9000)
"""As many weights in each of the three: 36 million."""


def shapes(*, tied: bool) -> dict[str, tuple[int, ...]]:
    head = {} if tied else {LM_HEAD: TABLE}
    return {EMBED_TOKENS: TABLE, "model.layers.0.mlp.up_proj.weight": LINEAR, **head}


def check(folder: Path, variant: str, bits: tuple[float, float], *, tied: bool) -> None:
    """Files of decoder and embedding, of so many bits a weight, that take no room."""
    suffix, millions = variant_suffix(variant), (72, 36)
    for stem, count, each in zip(STEMS, millions, bits, strict=True):
        with (folder / f"{stem}{suffix}.onnx_data").open("wb") as file:
            file.truncate(int(1e6 * count * each / 8))
    config = OnnxVariantLanguageConfig(
        opset=21, logits="last", variant=variant, context_length=64, max_bits_per_weight=5.1
    )
    check_language_bytes(config, shapes(tied=tied), folder, tied=tied)


@pytest.mark.parametrize(
    ("variant", "bits", "tied"),
    [("int4", (5.0, 5.0), False), ("mixed", (5.3, 4.5), False), ("mixed", (5.0, 8.5), True)],
    ids=["each graph of a preset", "mixed within its budget", "a tied embedding counts once"],
)
def test_what_keeps_to_its_bits_passes(
    variant: str, bits: tuple[float, float], tied: bool, tmp_path: Path
) -> None:
    check(tmp_path, variant, bits, tied=tied)


@pytest.mark.parametrize(
    ("variant", "bits", "tied", "refusal"),
    [
        ("int4", (5.3, 4.5), False, r"decoder_model_merged_q4\.onnx_data: 5\.30 bits"),
        ("int4", (4.5, 8.5), False, r"embed_tokens_q4\.onnx_data: 8\.50 bits"),
        ("mixed", (5.3, 5.3), False, r"decoder_.*, embed_tokens.*: 5\.30 bits"),
        ("mixed", (5.3, 0.1), True, r"decoder_model_merged_mixed\.onnx_data: 5\.30 bits"),
    ],
)
def test_what_is_larger_is_refused(
    variant: str,
    bits: tuple[float, float],
    tied: bool,
    refusal: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ExportError, match=refusal):
        check(tmp_path, variant, bits, tied=tied)
