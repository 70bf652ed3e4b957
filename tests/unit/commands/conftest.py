"""A whole bundle, made from the small random FastVLM by the stages of a build."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastvlm_compile.bundle.assemble import BundlePlan, Part, VariantPlan, assemble
from fastvlm_compile.bundle.manifest import InputContract, Provenance
from fastvlm_compile.bundle.root_files import root_files
from fastvlm_compile.progress import silent
from fastvlm_compile.stages.checkpoint import TorchWeightsConfig, torch_weights
from fastvlm_compile.stages.onnx import (
    OnnxDecoderConfig,
    OnnxEmbedConfig,
    OnnxVisionConfig,
    decoder_model_merged,
    embed_tokens,
    vision_encoder,
)
from reference.checkpoint.tensors import open_checkpoint

IMAGE_SIZE = 128


@pytest.fixture(scope="session")
def whole_bundle(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Targets onnx and torch. Do not write into it."""
    root = tmp_path_factory.mktemp("whole")
    inputs = {"weights": random_checkpoint}
    graphs, weights = root / "graphs", root / "weights"
    graphs.mkdir()
    weights.mkdir()
    vision_encoder(OnnxVisionConfig(image_size=IMAGE_SIZE, opset=20), inputs, graphs, silent)
    embed_tokens(OnnxEmbedConfig(opset=20), inputs, graphs, silent)
    decoder_model_merged(OnnxDecoderConfig(opset=20, logits="last"), inputs, graphs, silent)
    torch_weights(TorchWeightsConfig(), inputs, weights, silent)
    return assemble(bundle_plan(random_checkpoint, graphs, weights), root / "dist" / "whole")


def bundle_plan(checkpoint: Path, graphs: Path, weights: Path) -> BundlePlan:
    contract = InputContract(
        image_size=IMAGE_SIZE,
        fit="pad",
        image_position="before",
        context_length=256,
        tokens_per_image=4,
    )
    parts = (Part(path="onnx", source=graphs), Part(path="torch", source=weights))
    variants = [
        VariantPlan(target=part.path, variant="fp32", files=(part.path,), num_weights=1, gates=())
        for part in parts
    ]
    return BundlePlan(
        name="whole",
        parts=parts,
        root_files=root_files(
            raw_config=json.loads((checkpoint / "config.json").read_text()),
            tied=open_checkpoint(checkpoint).tied,
            tokenizer_dir=checkpoint,
            contract=contract,
            paths=[f"onnx/{path.name}" for path in graphs.iterdir()],
        ),
        contract=contract,
        variants=tuple(variants),
        provenance=Provenance(checkpoint_digest="0", source_revision="0", tools={}, recipe=""),
        private_paths=(graphs.parent,),
    )


@pytest.fixture
def bundle(whole_bundle: Path, tmp_path: Path) -> Path:
    """A copy of it for a test that damages it."""
    return Path(shutil.copytree(whole_bundle, tmp_path / "whole"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two image files of odd sizes that have nothing in common."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(4)
    noise = generator.integers(0, 256, (75, 133, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    Image.new("RGB", (90, 41), (250, 120, 10)).save(folder / "orange.jpg")
    return folder / "noise.png", folder / "orange.jpg"
