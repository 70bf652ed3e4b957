"""Tensors and packages that do not fit together are refused by name, and nothing is left behind."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from compress_helpers import INT4, INT8, edited, with_error, write_quantized

from fastvlm_compile.export.coreml.check import operations
from fastvlm_compile.export.coreml.compress.packages import (
    compress_decoder,
    compress_projector,
    compress_vision,
)
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.scheme import Affine, Palette, SchemeError
from fastvlm_compile.quantize.weights_file import QuantizedWeights, file_name
from reference.checkpoint.names import VISION_PREFIX
from reference.checkpoint.tensors import Checkpoint

pytestmark = pytest.mark.xdist_group("coreml-compress")  # one worker exports the packages

DEPTHWISE = VISION_PREFIX + "network.0.0.convffn.conv.conv.weight"
FIRST = "model.mm_projector.0.weight"
GATE, UP = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up"))


def test_a_tensor_that_the_converter_folded_is_refused_by_name(
    float16: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantized = write_quantized(checkpoint, {DEPTHWISE: INT8}, tmp_path / "tensors")
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match=f"no constant .* for the quantized {DEPTHWISE}"):
        compress_vision(float16, quantized, tmp_path / "out", silent)
    assert list((tmp_path / "out").iterdir()) == []


def test_blocks_that_do_not_divide_the_channels_are_the_users_to_change(
    float16: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.down_proj.weight"  # 96 input channels
    scheme = Affine(bits=4, block_size=64, symmetric=True)
    quantized = write_quantized_anyhow(checkpoint, name, scheme, tmp_path / "tensors")
    (tmp_path / "out").mkdir()
    with pytest.raises(SchemeError, match=f"{name}: blocks of 64 do not divide its 96"):
        compress_decoder(float16, quantized, tmp_path / "out", silent, tied=False)


def write_quantized_anyhow(
    checkpoint: Checkpoint, name: str, scheme: Affine, folder: Path
) -> QuantizedWeights:
    """Entries that say so; the tensor behind them is never read."""
    quantized = write_quantized(checkpoint, {name: INT8}, folder)
    entry = replace(quantized.entries[name], scheme=scheme)
    return replace(quantized, entries={name: entry})


def test_a_constant_of_another_shape_is_refused_by_name(
    float16: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantized = write_quantized(checkpoint, {FIRST: INT4}, tmp_path / "tensors")
    turned = replace(quantized.entries[FIRST], shape=quantized.entries[FIRST].shape[::-1])
    with pytest.raises(ExportError, match=f"p_0_weight_to_fp16 is .*{FIRST}"):
        compress_projector(float16, replace(quantized, entries={FIRST: turned}), tmp_path, silent)


def test_codes_of_another_tensor_are_told_from_the_weights(
    float16: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantized = write_quantized(checkpoint, {GATE: INT4, UP: INT4}, tmp_path / "tensors")
    gate, up = (quantized.folders[name] / file_name(name) for name in (GATE, UP))
    shutil.copyfile(gate, tmp_path / "aside")
    shutil.copyfile(up, gate)
    shutil.copyfile(tmp_path / "aside", up)
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="was made from other weights"):
        compress_decoder(float16, quantized, tmp_path / "out", silent, tied=False)


@pytest.mark.parametrize("factor", [0.9, 1.1, float("nan")])
def test_another_error_than_the_quantizers_is_told(
    float16: Path, checkpoint: Checkpoint, tmp_path: Path, factor: float
) -> None:
    quantized = write_quantized(checkpoint, {FIRST: INT4}, tmp_path / "tensors")
    recorded = quantized.entries[FIRST].relative_error
    (tmp_path / "out").mkdir()
    compress_projector(float16, quantized, tmp_path / "out", silent)
    with pytest.raises(ExportError, match=f"{FIRST}: .* the quantizer says"):
        compress_projector(
            float16, with_error(quantized, FIRST, recorded * factor), tmp_path, silent
        )


def test_a_compressed_package_is_not_compressed_again(
    compressed16: Path, quantized: QuantizedWeights, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"weights of constexpr_.* are not constants"):
        compress_vision(compressed16, quantized, tmp_path, silent)


def test_a_package_of_an_older_system_is_refused(
    float16: Path, quantized: QuantizedWeights, tmp_path: Path
) -> None:
    def age(spec: object) -> None:
        spec.mlProgram.functions["main"].opset = "CoreML7"  # type: ignore[attr-defined]

    package = edited(float16 / "projector.mlpackage", tmp_path / "old", age)
    with pytest.raises(ExportError, match="opset CoreML7, not CoreML8"):
        compress_projector(package.parent, quantized, tmp_path, silent)


def test_functions_that_do_not_share_a_weight_are_refused(
    float16: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantized = write_quantized(checkpoint, {GATE: INT4}, tmp_path / "tensors")

    def part(spec: object) -> None:
        blobs = {
            op.outputs[0].name: op.attributes["val"].blobFileValue
            for op in operations(spec)  # type: ignore[arg-type]
            if op.type == "const"
        }  # of the function that comes last
        gate, up = (blobs[f"layers_0_mlp_{name}_proj_weight_to_fp16"] for name in ("gate", "up"))
        gate.offset = up.offset

    package = edited(float16 / "decoder.mlpackage", tmp_path / "parted", part)
    shutil.copyfile(float16 / "language.json", package.parent / "language.json")
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="do not share layers_0_mlp_gate_proj_weight"):
        compress_decoder(package.parent, quantized, tmp_path / "out", silent, tied=False)


def test_a_head_that_is_the_embedding_cannot_have_a_tensor_of_its_own(
    float16: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantized = write_quantized(checkpoint, {"lm_head.weight": INT4}, tmp_path / "tensors")
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match=r"no package has a place for lm_head\.weight"):
        compress_decoder(float16, quantized, tmp_path / "out", silent, tied=True)


def test_a_group_that_two_packages_would_cut_is_the_users_to_change(
    wide: Checkpoint, pieces: Path, tmp_path: Path
) -> None:
    """The head's 800 rows are in two packages of 400, which 32 does not divide."""
    scheme = Palette(bits=4, group_size=32)
    quantized = write_quantized(wide, {"lm_head.weight": scheme}, tmp_path / "tensors")
    (tmp_path / "out").mkdir()
    with pytest.raises(SchemeError, match=r"lm_head\.weight: rows 0 \.\. 399 cut a group of 32"):
        compress_decoder(pieces, quantized, tmp_path / "out", silent, tied=False)
