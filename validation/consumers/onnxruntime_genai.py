"""onnxruntime-genai: the bundle's folder as its model, images preprocessed outside of it."""

import json
from pathlib import Path

from validation.consumers.driving import drive, python_driver
from validation.consumers.onnx_consumer import Answered, Asked, OnnxConsumer, check_variants
from validation.consumers.onnx_expected import graph_paths
from validation.consumers.outcome import Environment, Outcome

GENAI_CONFIG = "genai_config.json"
TIMEOUT_S = 600.0
"""For loading and a few answers of a model of some billion weights on a slow machine."""


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """One outcome for each ONNX variant; `genai_config.json` names one, the others are put over."""
    consumer = OnnxConsumer(
        name="onnxruntime-genai",
        environment="venv-genai",
        needs=GENAI_CONFIG,
        origin="`targets.onnx.genai` of its recipe",
        answer=_answer,
    )
    return check_variants(consumer, bundle, environment)


def genai_graphs(bundle: Path, files: tuple[str, ...]) -> dict[str, str]:
    """genai's name of a part -> its graph in the bundle, for the files of a variant."""
    paths = graph_paths(bundle, files)
    vision = paths.vision_encoder.name.replace("vision_encoder", "vision", 1)
    embedding = paths.embed_tokens.name.replace("embed_tokens", "embedding", 1)
    return {
        "vision": f"onnx/{vision}",
        "embedding": f"onnx/{embedding}",
        "decoder": f"onnx/{paths.decoder_model_merged.name}",
    }


def named_graphs(bundle: Path) -> dict[str, str]:
    """Those that `genai_config.json` names."""
    model = json.loads((bundle / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]
    return {part: model[part]["filename"] for part in ("vision", "embedding", "decoder")}


def _answer(asked: Asked) -> Answered:
    graphs = genai_graphs(asked.bundle, asked.files)
    named = graphs == named_graphs(asked.bundle)
    command = python_driver(asked.interpreter, "onnxruntime_genai_generate.py")
    over = json.dumps({} if named else graphs)
    document = drive((*command, asked.bundle, asked.cases.file, over), timeout_s=TIMEOUT_S)
    answers = document["answers"]
    assert isinstance(answers, dict)
    return Answered(
        version=str(document["version"]),
        answers=answers,
        expected=asked.expected,
        how=f"{GENAI_CONFIG} " + ("as it is" if named else "with this variant's file names"),
    )
