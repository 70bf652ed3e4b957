"""Executed, compressed packages compute what the reference of the dequantized weights computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from compress_helpers import (
    INT4,
    INT4_OFFSETS,
    LUT4,
    PREFILL_CHUNK,
    compress_all,
    relative_l2,
    rename,
    weight_file,
    write_quantized,
)

from fastvlm_compile.export.coreml.compress.packages import compress_decoder, compress_projector
from fastvlm_compile.export.coreml.projector import ProjectorPackageConfig, export_projector
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.scheme import Palette, Quantized
from fastvlm_compile.quantize.source import DequantizedCheckpoint
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.tensors import Checkpoint
from reference.fastvlm import FastVLM
from reference.loading import build, load
from validation.runtimes.chunked_decoder import ChunkedDecoder
from validation.runtimes.language_layout import Span, read_layout
from validation.runtimes.ml_program.executable import load as executable
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program_runtime import ExecutedChunk

pytestmark = pytest.mark.xdist_group("coreml-compress")  # one worker exports the packages

CONVERSION = 1e-5
"""Float32 arithmetic in another order over the very same weights."""

PRECISION = 2e-2
"""Weights, scales and every result rounded to 11 bits."""


def limit(folder: Path) -> float:
    precision = read_layout(folder).precision
    return CONVERSION if precision == "float32" else PRECISION


def open_decoder(folder: Path) -> ChunkedDecoder[State]:
    layout = read_layout(folder)
    rounding = "none" if layout.precision == "float32" else "fp16"
    programs = [
        ExecutedChunk(executable(folder / chunk.package, function="prefill"), rounding)
        for chunk in layout.chunks
    ]
    return ChunkedDecoder(layout, programs)


def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((PREFILL_CHUNK + 4, 64), dtype=np.float32)


def decoded(folder: Path) -> np.ndarray:
    """Logits after a prompt of more than a chunk, and after two more tokens."""
    decoder = open_decoder(folder)
    memory = decoder.new_memory()
    given = rows()
    pieces = [given[:-2], given[-2:-1], given[-1:]]
    return np.stack([decoder.append(piece, memory) for piece in pieces])


def expected_logits(reference: FastVLM) -> np.ndarray:
    with torch.no_grad():
        logits, _ = reference.language(torch.from_numpy(rows())[None])
    return np.asarray(logits[0, -3:].numpy())


@pytest.mark.parametrize("form", ["compressed32", "compressed16"])
def test_the_decoder_is_the_reference_of_the_dequantized_weights(
    request: pytest.FixtureRequest, reference: FastVLM, random_checkpoint: Path, form: str
) -> None:
    folder = request.getfixturevalue(form)
    found = decoded(folder)
    assert relative_l2(found, expected_logits(reference)) <= limit(folder)
    # Negative control: the tolerance tells dequantized weights from those they were made of.
    assert relative_l2(found, expected_logits(load(random_checkpoint))) > 2 * limit(folder)


@pytest.mark.parametrize("form", ["compressed32", "compressed16"])
def test_tower_and_projector_are_the_reference_of_the_dequantized_weights(
    request: pytest.FixtureRequest, reference: FastVLM, random_checkpoint: Path, form: str
) -> None:
    folder = request.getfixturevalue(form)
    rounding = "none" if form == "compressed32" else "fp16"
    pixels = np.random.default_rng(0).random((1, 3, 128, 128), dtype=np.float32)
    tower = executable(folder / "fastvithd.mlpackage")
    features = tower.run({"images": pixels}, rounding=rounding)["image_features"]
    projector = executable(folder / "projector.mlpackage")
    rows = projector.run({"image_features": features}, rounding=rounding)["image_embeds"]

    def expected(model: FastVLM) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            features = model.vision(torch.from_numpy(pixels)).flatten(2).transpose(1, 2)
            return features.numpy(), model.project(features).numpy()

    wanted = expected(reference)
    assert relative_l2(features, wanted[0]) <= limit(folder)
    assert relative_l2(rows, wanted[1]) <= limit(folder)
    assert relative_l2(features, expected(load(random_checkpoint))[0]) > 2 * limit(folder)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_palettes_of_all_bits_execute(
    float32: Path, checkpoint: Checkpoint, tmp_path: Path, bits: int
) -> None:
    schemes: dict[str, Quantized] = {
        name: Palette(bits=bits, group_size=group)  # type: ignore[arg-type]
        for group, name in enumerate(
            ["lm_head.weight", "model.layers.0.mlp.up_proj.weight", "model.mm_projector.0.weight"]
        )
    }
    quantized = write_quantized(checkpoint, schemes, tmp_path / "tensors")
    folder = compress_all(float32, quantized, tmp_path / "compressed")
    reference = build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized))
    assert relative_l2(decoded(folder), expected_logits(reference)) <= CONVERSION


@pytest.mark.parametrize("scheme", [LUT4, INT4_OFFSETS])
def test_a_head_in_several_packages_takes_its_rows(
    wide: Checkpoint, pieces: Path, tmp_path: Path, scheme: Quantized
) -> None:
    quantized = write_quantized(wide, {"lm_head.weight": scheme}, tmp_path / "tensors")
    (tmp_path / "compressed").mkdir()
    compress_decoder(pieces, quantized, tmp_path / "compressed", silent, tied=False)
    layout = read_layout(tmp_path / "compressed")
    assert [chunk.vocabulary for chunk in layout.chunks[1:]] == [
        Span(first=0, count=400),
        Span(first=400, count=400),
    ]
    reference = build(DequantizedCheckpoint(checkpoint=wide, quantized=quantized))
    found = decoded(tmp_path / "compressed")
    assert relative_l2(found, expected_logits(reference)) <= CONVERSION


def test_a_head_that_is_the_embedding_takes_its_tensor(
    float32: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The package's head is put to the embedding's codes; here both are the same weights."""
    lm_head = write_quantized(checkpoint, {"lm_head.weight": INT4}, tmp_path / "tensors")
    tied = rename(lm_head, "lm_head.weight", "model.embed_tokens.weight")
    (tmp_path / "compressed").mkdir()
    compress_decoder(float32, tied, tmp_path / "compressed", silent, tied=True)
    reference = build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=lm_head))
    found = decoded(tmp_path / "compressed")
    assert relative_l2(found, expected_logits(reference)) <= CONVERSION


def test_functions_for_several_sizes_share_the_compressed_weights(
    checkpoint: Checkpoint, quantized: QuantizedWeights, reference: FastVLM, tmp_path: Path
) -> None:
    config = ProjectorPackageConfig(
        vision=checkpoint.config.vision,
        hidden_size=checkpoint.config.text.hidden_size,
        precision="float32",
        further_sizes=(192,),
    )
    (tmp_path / "compressed").mkdir()
    source = export_projector(config, checkpoint, tmp_path, silent)
    package = compress_projector(tmp_path, quantized, tmp_path / "compressed", silent)
    program = executable(package)
    assert len(program.functions) == 2
    for name in program.functions:
        function = program.with_function(name)
        rows = 4 if name == "main" else 9
        features = np.random.default_rng(0).standard_normal((1, rows, 256), dtype=np.float32)
        with torch.no_grad():
            expected = reference.project(torch.from_numpy(features)).numpy()
        found = function.run({"image_features": features})["image_embeds"]
        assert relative_l2(found, expected) <= CONVERSION
    assert weight_file(package).stat().st_size < 0.4 * weight_file(source).stat().st_size
