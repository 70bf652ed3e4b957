"""Goldens of the small random FastVLM and the real graphs exported from it, made once."""

from pathlib import Path

import pytest

from fastvlm_compile.progress import silent
from fastvlm_compile.stages.onnx import (
    OnnxDecoderConfig,
    OnnxEmbedConfig,
    OnnxVisionConfig,
    decoder_model_merged,
    embed_tokens,
    vision_encoder,
)
from reference.fastvlm import FastVLM
from reference.loading import load
from reference.prompt import PromptTokenizer, load_tokenizer
from validation.golden_file import open_goldens
from validation.golden_inputs import golden_inputs
from validation.golden_plan import GoldenPlan
from validation.golden_run import run_reference
from validation.goldens import Goldens
from validation.runtimes.onnxruntime_runtime import GraphPaths

OPSET = 20
IMAGE_SIZE = 128

PLAN = GoldenPlan(
    image_size=IMAGE_SIZE,
    fit="pad",
    image_position="before",
    scenes=2,
    photographs=2,
    prompts=("Describe the image.", "What do you see?"),
    max_new_tokens=10,
    task_questions=7,
)


@pytest.fixture(scope="session")
def model(random_checkpoint: Path) -> FastVLM:
    """The reference model."""
    return load(random_checkpoint)


@pytest.fixture(scope="session")
def tokenizer(random_checkpoint: Path) -> PromptTokenizer:
    """Its tokenizer."""
    return load_tokenizer(random_checkpoint)


@pytest.fixture(scope="session")
def golden_directory(
    model: FastVLM, tokenizer: PromptTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Goldens of `PLAN`. Do not write into it."""
    directory = tmp_path_factory.mktemp("goldens")
    run_reference(model, tokenizer, golden_inputs(PLAN), directory, silent)
    return directory


@pytest.fixture(scope="session")
def goldens(golden_directory: Path) -> Goldens:
    """The same, opened."""
    return open_goldens(golden_directory)


@pytest.fixture(scope="session")
def graphs(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> GraphPaths:
    """The three graphs as the build makes them, the decoder with all logits."""
    out = tmp_path_factory.mktemp("graphs")
    inputs = {"weights": random_checkpoint, "checkpoint": random_checkpoint}
    vision = OnnxVisionConfig(image_size=IMAGE_SIZE, opset=OPSET)
    vision_encoder(vision, inputs, out, silent)
    embed_tokens(OnnxEmbedConfig(opset=OPSET), inputs, out, silent)
    decoder_model_merged(OnnxDecoderConfig(opset=OPSET, logits="full"), inputs, out, silent)
    return GraphPaths(
        vision_encoder=out / "vision_encoder.onnx",
        embed_tokens=out / "embed_tokens.onnx",
        decoder_model_merged=out / "decoder_model_merged.onnx",
    )
