"""transformers' own FastVLM on timm's tower: a bundle's `torch/`, converted to its layout.

`checkpoint convert` makes the folder, as a user would; transformers picks the classes by itself.
Asked in float32, whatever the weights are stored in, since the reference is.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from validation.consumers.comparing import judged
from validation.consumers.driving import DriverError, drive, python_driver
from validation.consumers.golden_cases import ConsumerCases, write_cases
from validation.consumers.outcome import Environment, Outcome, not_installed, not_run
from validation.golden_file import open_goldens
from validation.metrics import tensor_metrics

CONSUMER = "transformers"
VARIANT = "torch.fp32"
ENVIRONMENT = "venv-transformers"
CLASSES = ("FastVlmConfig", "FastVlmForConditionalGeneration")
TIMEOUT_S = 900.0
"""For loading and a few answers of a model of some billion weights on a slow machine."""

MAX_FEATURE_ERROR = 1e-4
"""Relative L2. The same float32 arithmetic in another order; rounding stays near 1e-6."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """One outcome: classes, tensors, image features and answers."""
    if not (bundle / "torch" / "config.json").is_file():
        reason = "the bundle holds no checkpoint (the target torch of its recipe)"
        return not_run(CONSUMER, [VARIANT], reason)
    interpreter = environment.python(ENVIRONMENT)
    if not interpreter.exists():
        return not_installed(CONSUMER, [VARIANT], interpreter)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = write_cases(bundle, folder)
        out = folder / "features.safetensors"
        try:
            checkpoint = _converted(bundle, folder)
            command = python_driver(interpreter, "transformers_generate.py")
            document = drive((*command, checkpoint, cases.file, out), timeout_s=TIMEOUT_S)
        except DriverError as error:
            return (_disagreed("", str(error)),)
        return (_judged(bundle, cases, document, out),)


def _converted(bundle: Path, folder: Path) -> Path:
    """The bundle's checkpoint in the layout of transformers.

    Raises:
        DriverError: it cannot be converted.
    """
    source, converted = folder / "checkpoint", folder / "converted"
    source.mkdir()
    files = [*(bundle / "torch").iterdir(), *(bundle / each for each in _TOKENIZER_FILES)]
    for path in files:
        if path.is_file():
            (source / path.name).symlink_to(path.resolve())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] == "fast_vlm":
        return source
    command = (sys.executable, "-m", "fastvlm_compile", "checkpoint", "convert")
    ended = subprocess.run(
        [*command, str(source), str(converted), "--to", "transformers"],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["no word"]
        raise DriverError(f"checkpoint convert: {lines[0]}")
    return converted


def _judged(
    bundle: Path, cases: ConsumerCases, document: dict[str, object], features: Path
) -> Outcome:
    version = f"{document['version']} (timm {document['timm']})"
    classes = (document["config"], document["model"])
    if classes != CLASSES:
        return _disagreed(version, f"loads as {classes[0]} and {classes[1]}")
    differences, answers = document["differences"], document["answers"]
    assert isinstance(differences, list)
    assert isinstance(answers, dict)
    if differences:
        some = ", ".join(differences[:3])
        return _disagreed(version, f"{len(differences)} tensors differ: {some}")
    error = _feature_error(bundle, cases, features)
    if not error <= MAX_FEATURE_ERROR:
        detail = f"image features off by {error:.1e} (at most {MAX_FEATURE_ERROR:.0e} allowed)"
        return _disagreed(version, detail)
    outcome = judged(cases, answers, consumer=CONSUMER, version=version, variant=VARIANT)
    return replace(
        outcome,
        detail=f"{outcome.detail}; tensors equal set for set by name and shape; image features "
        f"within {error:.1e} (at most {MAX_FEATURE_ERROR:.0e} allowed)",
    )


def _feature_error(bundle: Path, cases: ConsumerCases, path: Path) -> float:
    """The largest relative L2 error over the images; NaN if any value is."""
    from safetensors.numpy import load_file

    goldens = open_goldens(bundle / "goldens")
    images = {case.id: case.image_ids for case in goldens.index.cases}
    found: dict[str, npt.NDArray[np.float32]] = load_file(path)
    errors = [
        tensor_metrics(goldens.image_features(images[case.id][0]), found[case.id]).relative_l2
        for case in cases.cases
        if case.image is not None
    ]
    return float(np.max(errors))


def _disagreed(version: str, detail: str) -> Outcome:
    return Outcome(
        consumer=CONSUMER, version=version, variant=VARIANT, status="disagreed", detail=detail
    )
