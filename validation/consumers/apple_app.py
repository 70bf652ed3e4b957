"""Apple's FastVLM app (ml-fastvlm, `app/`), which takes the folder `apple_app`.

The app itself is Swift and runs on Apple's machines alone. What can be shown anywhere is shown
here: every clause of what the app reads, and that package and weights compute what the reference
does. The app crops images and puts them behind the question, whatever the bundle's manifest says.
"""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from reference.errors import UserError
from validation.consumers.apple_app_files import (
    FEATURE_CHANNELS,
    IMAGE_SIZE,
    PACKAGE,
    WEIGHTS,
    config_problems,
    file_problems,
    processor_problems,
    read_object,
    tokenizer_problems,
)
from validation.consumers.apple_app_tensors import tensor_problems
from validation.consumers.outcome import Environment, Outcome, not_run, not_supported
from validation.golden_file import open_goldens
from validation.goldens import Goldens
from validation.model_shape import ModelShape

NAME = "apple app"
BINARY = "the app's binary"
FOLDER = "apple_app"
ENVIRONMENT = ""

_NUM_TOLD = 5
_TOKENS = (IMAGE_SIZE // 64) ** 2


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """Checks and executes the bundle's `apple_app`; nothing is needed but our own interpreter.

    Args:
        bundle: with goldens.
        environment: not used.

    Returns:
        One outcome for the folder, one for the app's binary, which needs a Mac.

    Raises:
        GoldenError: the bundle's goldens are missing or damaged.
    """
    del environment
    goldens = open_goldens(bundle / "goldens")
    folder = bundle / FOLDER
    if reason := _unfit(goldens.shape):
        return not_supported(NAME, (FOLDER,), reason)
    if not folder.is_dir():
        return not_run(NAME, (FOLDER,), "the bundle has no apple_app; targets.apple_app makes it")
    binary = not_run(NAME, (BINARY,), "needs Xcode and a Mac or an iPhone")
    return (_folder_outcome(bundle, folder, goldens), *binary)


def folder_problems(folder: Path) -> tuple[str, ...]:
    """Every clause of the contract that a folder breaks; empty if the app can load it."""
    if found := file_problems(folder):
        return found
    config = read_object(folder / "config.json")
    problems = (
        *config_problems(config),
        *processor_problems(
            read_object(folder / "preprocessor_config.json"),
            read_object(folder / "processor_config.json"),
        ),
        *tokenizer_problems(
            read_object(folder / "tokenizer_config.json"),
            read_object(folder / "tokenizer.json"),
            config,
        ),
        *package_clauses(folder / PACKAGE),
    )
    # What tensors there must be follows from the config: a broken one would only give echoes.
    if any(problem.startswith("config.json") for problem in problems):
        return problems
    return (*problems, *tensor_problems(folder / WEIGHTS, config))


def package_clauses(package: Path) -> tuple[str, ...]:
    """Names, shapes and dtypes of the vision package; the app traps on any other."""
    from validation.coreml_contract import package_problems
    from validation.runtimes.core_ml_vision import PackageUnreadableError, describe_package

    try:
        found = describe_package(package)
    except PackageUnreadableError as error:
        return (f"{package.name}: {error.message.removeprefix(f'{package}: ')}",)
    further = tuple(
        int(name.removeprefix("size_")) for name in found.functions if name.startswith("size_")
    )
    problems = package_problems(found, _app_shape(), further_sizes=further)
    return tuple(f"{package.name}: {problem}" for problem in problems)


def _unfit(shape: ModelShape) -> str:
    if shape.image_size != IMAGE_SIZE:
        return f"the app's tower takes {IMAGE_SIZE} pixels, this model {shape.image_size}"
    if shape.vision_channels != FEATURE_CHANNELS:
        return f"the app's tower has {FEATURE_CHANNELS} channels, this one {shape.vision_channels}"
    return ""


def _folder_outcome(bundle: Path, folder: Path, goldens: Goldens) -> Outcome:
    problems = folder_problems(folder)
    summary = ""
    if not problems:
        from validation.consumers.apple_app_numbers import measure_folder

        try:
            measured = measure_folder(folder, goldens, _quantized(bundle, folder))
            problems, summary = measured.problems, measured.summary
        except UserError as error:
            problems = (error.message,)
    told = "; ".join(problems[:_NUM_TOLD])
    if more := len(problems[_NUM_TOLD:]):
        told += f"; and {more} more"
    return Outcome(
        consumer=NAME,
        version=f"mlx {importlib.metadata.version('mlx')}, ML Program executor",
        variant=FOLDER,
        status="disagreed" if problems else "agreed",
        detail=told or f"every clause of the folder holds; {summary}; not executed by Core ML",
    )


def _quantized(bundle: Path, folder: Path) -> Mapping[str, np.ndarray]:
    """What the reference with the folder's weights returned; nothing for float16.

    Raises:
        UserError: the bundle's goldens lack it.
    """
    from validation.package_outputs import NoOutputs, read_outputs

    section = read_object(folder / "config.json").get("quantization")
    if not isinstance(section, dict):
        return {}
    name = f"int{section['bits']}-mlx"
    outputs = read_outputs(bundle / "goldens" / "quantized" / name)
    if isinstance(outputs, NoOutputs):
        raise UserError(f"the bundle has no goldens of {name}", hint="build the bundle again")
    return outputs.arrays


def _app_shape() -> ModelShape:
    """The sizes that the app is compiled with; what it does not look at is 0."""
    return ModelShape(
        image_size=IMAGE_SIZE,
        num_image_tokens=_TOKENS,
        vision_channels=FEATURE_CHANNELS,
        hidden_size=0,
        vocab_size=0,
        num_layers=0,
        num_kv_heads=0,
        head_dim=0,
    )
