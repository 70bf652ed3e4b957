"""transformers.js in Node: its processor and model class load the bundle's files from disk.

The golden images are square, as large as the vision tower's input. That matters: transformers.js
takes from `preprocessor_config.json` how to crop and knows no other fit, so whoever gives it an
image that is not square to a bundle that pads must pad it first.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from validation.consumers.comparing import judged
from validation.consumers.driving import DRIVERS, DriverError, drive
from validation.consumers.dtypes import UNNAMED, dtypes_of, min_agreement
from validation.consumers.golden_cases import ConsumerCases, write_cases
from validation.consumers.onnx_expected import compared_with, expected_cases, onnx_files
from validation.consumers.outcome import (
    Environment,
    Outcome,
    not_installed,
    not_run,
    not_supported,
)

CONSUMER = "transformers.js"
TIMEOUT_S = 600.0
"""For loading and a few answers of a model of some billion weights on a slow machine."""


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """One outcome for each ONNX variant."""
    found = {variant: dtypes_of(files) for variant, files in onnx_files(bundle).items()}
    named = {variant: dtypes for variant, dtypes in found.items() if dtypes is not None}
    labels = [f"onnx.{variant}" for variant in named]
    beside = not_supported(CONSUMER, [f"onnx.{v}" for v in found if v not in named], UNNAMED)
    node = shutil.which("node")
    if not (environment.node_modules / "@huggingface" / "transformers").is_dir():
        return not_installed(CONSUMER, labels, environment.node_modules) + beside
    if node is None:
        return not_run(CONSUMER, labels, "Node 20 or later is not installed") + beside
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(bundle, Path(folder))
        command = (node, DRIVERS / "transformers_js.mjs", environment.node_modules, bundle)
        asked = (*command, cases.file)
        return tuple(_outcome(bundle, cases, asked, *each) for each in named.items()) + beside


def _outcome(
    bundle: Path,
    cases: ConsumerCases,
    command: tuple[str | Path, ...],
    variant: str,
    dtypes: Mapping[str, str],
) -> Outcome:
    label = f"onnx.{variant}"
    dtype = _argument(dtypes)
    try:
        document = drive((*command, dtype), timeout_s=TIMEOUT_S)
    except DriverError as error:
        return Outcome(
            consumer=CONSUMER, version="", variant=label, status="disagreed", detail=str(error)
        )
    answers = document["answers"]
    assert isinstance(answers, dict)
    outcome = judged(
        expected_cases(bundle, cases, variant, onnx_files(bundle)[variant]),
        answers,
        consumer=CONSUMER,
        version=str(document["version"]),
        variant=label,
        min_agreement=min_agreement(variant),
    )
    return replace(
        outcome, detail=f"{outcome.detail}, compared with {compared_with(variant)}; dtype {dtype}"
    )


def _argument(dtypes: Mapping[str, str]) -> str:
    """One name where all graphs have the same, as users give it."""
    names = set(dtypes.values())
    return names.pop() if len(names) == 1 else json.dumps(dtypes)
