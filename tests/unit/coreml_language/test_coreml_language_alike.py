"""Packages written from one that was converted: every byte as if they had been converted too."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from coreml_language_helpers import decoder_config
from torch import Tensor

from fastvlm_compile.checkpoint.synthesize import synthesize
from fastvlm_compile.export.coreml.blobs import read_float_blob
from fastvlm_compile.export.coreml.canonical import read_spec, spec_path
from fastvlm_compile.export.coreml.compress.blob_writer import stored_blob
from fastvlm_compile.export.coreml.compress.program import Site, sites
from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.export.coreml.language import export as exporting
from fastvlm_compile.export.coreml.language.alike import (
    Converted,
    serves_as_model,
    write_alike,
)
from fastvlm_compile.export.coreml.language.export import convert_chunk, export_decoder
from fastvlm_compile.export.coreml.language.interface import are_alike
from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig, split
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint, open_checkpoint

LAYERS = 11  # so that a name grows by a digit
MB_OF_ONE_LAYER = 0.062


@pytest.fixture(scope="module")
def deep(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    directory = tmp_path_factory.mktemp("deep_checkpoint")
    synthesize(config | {"num_hidden_layers": LAYERS}, 0, "apple", directory)
    return open_checkpoint(directory)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the chunks that were converted."""
    numbers: list[int] = []

    def noted(chunk: Chunk, config: DecoderConfig, source: WeightSource, package: Path) -> None:
        numbers.append(chunk.number)
        convert_chunk(chunk, config, source, package)

    monkeypatch.setattr(exporting, "convert_chunk", noted)
    return numbers


def config_of(checkpoint: Checkpoint, precision: Precision = "float16") -> DecoderConfig:
    return decoder_config(checkpoint, precision=precision, max_chunk_mb=MB_OF_ONE_LAYER)


def files_of(package: Path) -> dict[str, bytes]:
    paths = (path for path in package.rglob("*") if path.is_file())
    return {str(path.relative_to(package)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_each_kind_is_converted_once_and_the_bytes_are_those_of_converting(
    deep: Checkpoint, conversions: list[int], precision: Precision, tmp_path: Path
) -> None:
    config = config_of(deep, precision)
    chunks = split(config)
    out = tmp_path / "out"
    out.mkdir()
    export_decoder(config, deep, out, silent)
    assert len(chunks) == LAYERS + 2  # the head in two pieces
    assert conversions == [1, 2, LAYERS + 1]
    for number in (3, LAYERS, LAYERS + 2):
        package = tmp_path / f"decoder_{number}_of_{len(chunks)}.mlpackage"
        convert_chunk(chunks[number - 1], config, deep, package)
        assert files_of(package) == files_of(out / package.name)


def test_chunks_of_other_sizes_or_ends_are_not_alike(deep: Checkpoint) -> None:
    config = decoder_config(deep, precision="float16", max_chunk_mb=2.5 * MB_OF_ONE_LAYER)
    first, second, third, *_, last = split(config)
    assert are_alike(second, third, config)
    assert not are_alike(first, second, config)
    assert not are_alike(second, last, config)


@pytest.fixture(scope="module")
def second(deep: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Not to be changed."""
    chunk = split(config_of(deep))[1]
    package = tmp_path_factory.mktemp("second") / "decoder_2_of_3.mlpackage"
    convert_chunk(chunk, config_of(deep), deep, package)
    return Converted(chunk=chunk, package=package)


def constants(package: Path, beginning: str) -> list[Site]:
    found = [site for site in sites(read_spec(package), "") if site.name.startswith(beginning)]
    assert found, beginning
    return found


@pytest.mark.parametrize("beginning", ["layers_1_mlp_up_proj", "linear_"])
def test_a_package_with_a_number_of_other_origin_is_no_model(
    deep: Checkpoint, second: Converted, tmp_path: Path, beginning: str
) -> None:
    config = config_of(deep)
    assert serves_as_model(second, config, deep, tmp_path)
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / second.package.name
    shutil.copytree(second.package, other)
    weights = spec_path(other).parent / "weights" / "weight.bin"
    blob = stored_blob(weights, constants(other, beginning)[0].offset)
    with weights.open("r+b") as file:
        file.seek(blob.data_offset)
        file.write(b"\x01\x3c")
    changed = Converted(chunk=second.chunk, package=other)
    assert not serves_as_model(changed, config, deep, tmp_path)


def test_without_a_model_every_chunk_is_converted(
    deep: Checkpoint, conversions: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def refuse(model: Converted, *_: object) -> bool:
        asked.append(model.chunk.number)
        return False

    monkeypatch.setattr(exporting, "serves_as_model", refuse)
    config = decoder_config(deep, precision="float16", max_chunk_mb=2.5 * MB_OF_ONE_LAYER)
    export_decoder(config, deep, tmp_path, silent)
    assert conversions == [chunk.number for chunk in split(config)]
    assert asked == [2]  # once, not for each


class Swollen:
    """A checkpoint with one weight that float16 does not reach."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def read(self, name: str) -> Tensor:
        tensor = self.checkpoint.read(name)
        if name == "model.layers.4.mlp.down_proj.weight":
            tensor = tensor.clone().to(torch.float32)
            tensor[0, 0] = 7e4
        return tensor


def test_a_weight_that_overflows_is_named(
    deep: Checkpoint, second: Converted, tmp_path: Path
) -> None:
    config = config_of(deep)
    chunk = split(config)[4]
    with pytest.raises(ExportError, match=r"layers_4_mlp_down_proj_weight_to_fp16 is not finite"):
        write_alike(second, chunk, config, Swollen(deep), tmp_path / "decoder_5_of_3.mlpackage")


def test_no_name_of_the_model_is_left(deep: Checkpoint, second: Converted, tmp_path: Path) -> None:
    config = config_of(deep)
    package = tmp_path / "a.mlpackage"
    write_alike(second, split(config)[LAYERS - 1], config, deep, package)
    spec = spec_path(package).read_bytes()
    assert b"layers_1_" not in spec
    assert f"layers_{LAYERS - 1}_".encode() in spec
    weights = spec_path(package).parent / "weights" / "weight.bin"
    (site, *_) = constants(package, f"layers_{LAYERS - 1}_mlp_down_proj")
    expected = deep.read(f"model.layers.{LAYERS - 1}.mlp.down_proj.weight")
    found = read_float_blob(weights, site.offset)
    assert (found == expected.to(torch.float32).numpy().reshape(-1).astype("float16")).all()
