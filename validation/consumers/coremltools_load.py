"""coremltools: `MLModel(spec)` of every package, and on a Mac what Core ML predicts with them.

Two outcomes for each variant, since the first is had everywhere and the second is not.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from validation.consumers.driving import DriverError, drive, python_driver
from validation.consumers.outcome import Environment, Outcome, not_run
from validation.golden_file import open_goldens
from validation.goldens import Goldens
from validation.metrics import tensor_metrics
from validation.runtimes.coreml_runtime import why_unavailable

CONSUMER = "coremltools"
VISION = "fastvithd"
TIMEOUT_S = 900.0
"""Core ML compiles each function of each package, minutes in all at full size."""

MAX_ERROR = {"float32": 0.02, "float16": 0.02}
"""Variant -> relative L2 of the tower's features. Core ML may compute any of them in half
precision, which costs 1e-3 in our executor."""
MAX_QUANTIZED_ERROR = 0.15
"""As above, of towers with 8 bits (2e-2 in our executor) and with tables of 64 values (5e-2)."""

_PORTS = "functions"


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """Loading and prediction of each Core ML variant that the bundle holds.

    It runs in this interpreter's own environment: coremltools is part of a build, and a Mac has it
    with the extra `coreml`.
    """
    del environment
    variants = _packages(bundle)
    loads = [f"coreml.{variant}" for variant in variants]
    predicts = [_predicts(variant) for variant in variants]
    if importlib.util.find_spec("coremltools") is None:
        reason = "coremltools is not installed (`pip install coremltools`)"
        return not_run(CONSUMER, [*loads, *predicts], reason)
    reason = why_unavailable()
    goldens = open_goldens(bundle / "goldens")
    outcomes: list[Outcome] = []
    for variant, packages in variants.items():
        with tempfile.TemporaryDirectory() as folder:
            outcomes += _variant(variant, packages, goldens, Path(folder), reason=reason)
    return tuple(outcomes)


def _packages(bundle: Path) -> dict[str, dict[str, str]]:
    """Variant -> package's name -> its path."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    found = {
        entry["variant"]: {
            Path(name).stem: str(bundle / name)
            for name in entry["files"]
            if name.endswith(".mlpackage")
        }
        for entry in manifest["variants"]
        if entry["target"] == "coreml"
    }
    return {variant: packages for variant, packages in found.items() if packages}


def _variant(
    variant: str, packages: Mapping[str, str], goldens: Goldens, folder: Path, *, reason: str
) -> tuple[Outcome, ...]:
    """Both outcomes of one variant; `reason` is why Core ML is not here, empty where it is."""
    image_id = goldens.index.image_ids[0]
    arguments: list[str | Path] = [json.dumps(packages)]
    if not reason:
        np.save(folder / "pixels.npy", goldens.pixel_values(image_id)[None])
        arguments += [folder / "pixels.npy", folder]
    command = python_driver(Path(sys.executable), "coremltools_load.py")
    try:
        document = drive((*command, *arguments), timeout_s=TIMEOUT_S)
    except DriverError as error:
        failed = Outcome(
            consumer=CONSUMER,
            version="",
            variant=f"coreml.{variant}",
            status="disagreed",
            detail=str(error),
        )
        return (failed, *not_run(CONSUMER, [_predicts(variant)], "it does not load"))
    loaded = _loaded(variant, document, goldens, executed=not reason)
    if reason:
        return (loaded, *not_run(CONSUMER, [_predicts(variant)], reason))
    return (loaded, _predicted(variant, document, goldens.vision_features(image_id)))


def _loaded(
    variant: str, document: Mapping[str, object], goldens: Goldens, *, executed: bool
) -> Outcome:
    functions = document[_PORTS]
    assert isinstance(functions, dict)
    empty = [
        f"{package}/{name}"
        for package, inside in functions.items()
        for name, (inputs, outputs) in inside.items()
        if not inputs or not outputs
    ]
    expected, found = _tower_ports(goldens), functions.get(VISION, {}).get("main")
    wrong = f"no inputs or outputs: {', '.join(empty)}" if empty else ""
    if found != expected:
        wrong = f"{VISION} declares {found}, not {expected}"
    number = sum(len(inside) for inside in functions.values())
    how = "by Core ML" if executed else "as MLModel(spec), which cannot predict here"
    return Outcome(
        consumer=CONSUMER,
        version=str(document["version"]),
        variant=f"coreml.{variant}",
        status="disagreed" if wrong else "agreed",
        detail=wrong or f"{len(functions)} packages, {number} functions load {how}",
    )


def _tower_ports(goldens: Goldens) -> list[Sequence[str]]:
    """What Apple's app wants of the tower: all shapes fixed, float32 on both sides."""
    shape = goldens.shape
    side = shape.image_size
    return [
        [f"images FLOAT32 [1, 3, {side}, {side}]"],
        [f"image_features FLOAT32 [1, {shape.num_image_tokens}, {shape.vision_channels}]"],
    ]


def _predicted(variant: str, document: Mapping[str, object], expected: np.ndarray) -> Outcome:
    files = document["predicted"]
    assert isinstance(files, dict)
    found = np.load(files[VISION])[0]
    limit = MAX_ERROR.get(variant, MAX_QUANTIZED_ERROR)
    same_shape = found.shape == expected.shape
    error = tensor_metrics(expected, found).relative_l2 if same_shape else float("nan")
    return Outcome(
        consumer=CONSUMER,
        version=str(document["version"]),
        variant=_predicts(variant),
        status="agreed" if error <= limit else "disagreed",
        detail=f"the tower's features off by {error:.1e} (relative L2, at most {limit} allowed)",
    )


def _predicts(variant: str) -> str:
    return f"coreml.{variant}, predictions"
