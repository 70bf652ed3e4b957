"""A bundle of the small random model, ONNX alone."""

import json
from pathlib import Path

import pytest

from fastvlm_compile.bundle.assemble import BundlePlan, Part, VariantPlan, assemble
from fastvlm_compile.bundle.manifest import InputContract, Provenance
from fastvlm_compile.bundle.root_files import root_files
from fastvlm_compile.progress import silent
from fastvlm_compile.stages.onnx import (
    OnnxDecoderConfig,
    OnnxEmbedConfig,
    OnnxVisionConfig,
    decoder_model_merged,
    embed_tokens,
    vision_encoder,
)
from reference.checkpoint.tensors import open_checkpoint


@pytest.fixture(scope="session")
def onnx_bundle(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Variant fp32. Do not write into it."""
    root = tmp_path_factory.mktemp("latency")
    inputs, graphs = {"weights": random_checkpoint}, root / "graphs"
    graphs.mkdir()
    vision_encoder(OnnxVisionConfig(image_size=128, opset=20), inputs, graphs, silent)
    embed_tokens(OnnxEmbedConfig(opset=20), inputs, graphs, silent)
    decoder_model_merged(OnnxDecoderConfig(opset=20, logits="last"), inputs, graphs, silent)
    return assemble(bundle_plan(random_checkpoint, graphs), root / "dist" / "small")


def bundle_plan(checkpoint: Path, graphs: Path) -> BundlePlan:
    contract = InputContract(
        image_size=128,
        fit="pad",
        image_position="before",
        context_length=256,
        tokens_per_image=4,
    )
    variant = VariantPlan(target="onnx", variant="fp32", files=("onnx",), num_weights=1, gates=())
    return BundlePlan(
        name="small",
        parts=(Part(path="onnx", source=graphs),),
        root_files=root_files(
            raw_config=json.loads((checkpoint / "config.json").read_text()),
            tied=open_checkpoint(checkpoint).tied,
            tokenizer_dir=checkpoint,
            contract=contract,
            paths=[f"onnx/{path.name}" for path in graphs.iterdir()],
        ),
        contract=contract,
        variants=(variant,),
        provenance=Provenance(checkpoint_digest="0", source_revision="0", tools={}, recipe=""),
        private_paths=(graphs.parent,),
    )
