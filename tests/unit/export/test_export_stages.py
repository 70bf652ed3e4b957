"""The stage functions write their files, and importing them costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from export_helpers import Graph, relative_l2

from fastvlm_compile.export.errors import UnsupportedExportError
from fastvlm_compile.progress import silent
from fastvlm_compile.stages import coreml, onnx
from reference.fastvlm import FastVLM


@pytest.fixture
def inputs(random_checkpoint: Path, tmp_path: Path) -> dict[str, Path]:
    return {"weights": random_checkpoint, "checkpoint": tmp_path}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_decoder_stage_writes_its_graph(inputs: dict[str, Path], out: Path) -> None:
    config = onnx.OnnxDecoderConfig(opset=21, logits="last")
    onnx.decoder_model_merged(config, inputs, out, silent)
    assert names(out) == ["decoder_model_merged.onnx"]


def test_the_embedding_stage_writes_its_graph(inputs: dict[str, Path], out: Path) -> None:
    onnx.embed_tokens(onnx.OnnxEmbedConfig(opset=20), inputs, out, silent)
    assert names(out) == ["embed_tokens.onnx"]


def test_the_vision_stage_exports_another_image_size_than_the_checkpoints_own(
    inputs: dict[str, Path], out: Path, reference: FastVLM
) -> None:
    told: list[str] = []

    def tell(done: int, total: int, what: str) -> None:
        assert 0 <= done <= total
        told.append(what)

    onnx.vision_encoder(onnx.OnnxVisionConfig(image_size=192, opset=20), inputs, out, tell)
    assert names(out) == ["vision_encoder.onnx"]
    pixels = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    feeds = {"pixel_values": pixels.numpy()}
    found = Graph.open(out / "vision_encoder.onnx").run(feeds)["image_features"]
    with torch.no_grad():
        expected = reference.encode_image(pixels).numpy()
    assert found.shape[1] == 9
    assert relative_l2(found, expected) <= 1e-5
    assert told[0] == "tracing the vision encoder"
    assert told[-1] == "vision encoder written"


def test_the_core_ml_stage_writes_the_package_of_the_size_it_is_asked_for(
    inputs: dict[str, Path], out: Path
) -> None:
    config = coreml.CoreMLVisionConfig(image_size=64, precision="float32")
    coreml.vision(config, inputs, out, silent)
    assert names(out) == ["fastvithd.mlpackage"]


def test_an_opset_that_cannot_be_exported_is_the_users_mistake(
    inputs: dict[str, Path], out: Path
) -> None:
    with pytest.raises(UnsupportedExportError):
        onnx.vision_encoder(onnx.OnnxVisionConfig(image_size=64, opset=17), inputs, out, silent)
    assert names(out) == []


def test_importing_the_stages_imports_no_heavy_library() -> None:
    code = (
        "import sys, fastvlm_compile.stages.onnx, fastvlm_compile.stages.coreml;"
        "heavy = ('numpy', 'torch', 'onnx', 'onnx_ir', 'coremltools');"
        "print([name for name in heavy if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
