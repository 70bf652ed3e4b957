"""onnxruntime-genai: the bundle's folder as its model, images preprocessed outside of it."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from validation.consumers.comparing import judged
from validation.consumers.driving import DriverError, drive, python_driver
from validation.consumers.golden_cases import ConsumerCases, write_cases
from validation.consumers.onnx_expected import (
    compared_with,
    expected_cases,
    graph_paths,
    onnx_files,
)
from validation.consumers.outcome import Environment, Outcome, not_installed, not_run

CONSUMER = "onnxruntime-genai"
GENAI_CONFIG = "genai_config.json"
ENVIRONMENT = "venv-genai"
TIMEOUT_S = 600.0
"""For loading and a few answers of a model of some billion weights on a slow machine."""


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """One outcome for each ONNX variant; `genai_config.json` names one, the others are put over."""
    variants = onnx_files(bundle)
    labels = [f"onnx.{variant}" for variant in variants]
    if not (bundle / GENAI_CONFIG).is_file():
        reason = f"the bundle has no {GENAI_CONFIG} (`targets.onnx.genai` of its recipe)"
        return not_run(CONSUMER, labels, reason)
    interpreter = environment.python(ENVIRONMENT)
    if not interpreter.exists():
        return not_installed(CONSUMER, labels, interpreter)
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(bundle, Path(folder))
        return tuple(
            _outcome(bundle, cases, interpreter, variant, files)
            for variant, files in variants.items()
        )


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


def _outcome(
    bundle: Path,
    cases: ConsumerCases,
    interpreter: Path,
    variant: str,
    files: tuple[str, ...],
) -> Outcome:
    graphs = genai_graphs(bundle, files)
    named = graphs == named_graphs(bundle)
    command = python_driver(interpreter, "onnxruntime_genai_generate.py")
    label = f"onnx.{variant}"
    try:
        document = drive(
            (*command, bundle, cases.file, json.dumps({} if named else graphs)),
            timeout_s=TIMEOUT_S,
        )
    except DriverError as error:
        return Outcome(
            consumer=CONSUMER, version="", variant=label, status="disagreed", detail=str(error)
        )
    answers = document["answers"]
    assert isinstance(answers, dict)
    outcome = judged(
        expected_cases(bundle, cases, variant, files),
        answers,
        consumer=CONSUMER,
        version=str(document["version"]),
        variant=label,
    )
    how = f"{GENAI_CONFIG} as it is" if named else f"{GENAI_CONFIG} with this variant's file names"
    return replace(
        outcome, detail=f"{outcome.detail}, compared with {compared_with(variant)}; {how}"
    )
