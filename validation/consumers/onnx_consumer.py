"""A program that answers with the ONNX graphs: asked about every variant, and judged."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from validation.consumers.comparing import judged
from validation.consumers.driving import DriverError
from validation.consumers.golden_cases import ConsumerCases, write_cases
from validation.consumers.onnx_expected import compared_with, expected_cases, onnx_files
from validation.consumers.outcome import Environment, Outcome, not_installed, not_run


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one variant is asked."""

    bundle: Path
    cases: ConsumerCases
    """What the reference answered."""
    expected: ConsumerCases
    """What the variant has to answer."""
    interpreter: Path
    variant: str
    files: tuple[str, ...]
    """Its own, in the bundle."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What it answered."""

    version: str
    """Of the program."""
    answers: Mapping[str, Sequence[int]]
    """Case id -> token ids."""
    expected: ConsumerCases
    """`Asked.expected`, or what is left of it by the way the program spells its answers."""
    how: str
    """With which file of the bundle."""


@dataclass(frozen=True, kw_only=True)
class OnnxConsumer:
    """One program.

    Attributes:
        name: of the program.
        environment: the virtual environment that it lives in.
        needs: a file of the bundle without which it is not run.
        origin: where that file comes from; empty if from every build.
        answer: runs it for one variant; `DriverError` is an answer that did not come.
    """

    name: str
    environment: str
    needs: str
    origin: str = ""
    answer: Callable[[Asked], Answered]


def check_variants(
    consumer: OnnxConsumer, bundle: Path, environment: Environment
) -> tuple[Outcome, ...]:
    """One outcome for each ONNX variant."""
    variants = onnx_files(bundle)
    labels = [f"onnx.{variant}" for variant in variants]
    if not (bundle / consumer.needs).is_file():
        origin = f" ({consumer.origin})" if consumer.origin else ""
        return not_run(consumer.name, labels, f"the bundle has no {consumer.needs}{origin}")
    interpreter = environment.python(consumer.environment)
    if not interpreter.exists():
        return not_installed(consumer.name, labels, interpreter)
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(bundle, Path(folder))
        return tuple(
            _outcome(
                consumer,
                Asked(
                    bundle=bundle,
                    cases=cases,
                    expected=expected_cases(bundle, cases, variant, files),
                    interpreter=interpreter,
                    variant=variant,
                    files=files,
                ),
            )
            for variant, files in variants.items()
        )


def _outcome(consumer: OnnxConsumer, asked: Asked) -> Outcome:
    label = f"onnx.{asked.variant}"
    try:
        found = consumer.answer(asked)
    except DriverError as error:
        return Outcome(
            consumer=consumer.name, version="", variant=label, status="disagreed", detail=str(error)
        )
    outcome = judged(
        found.expected,
        found.answers,
        consumer=consumer.name,
        version=found.version,
        variant=label,
    )
    compared = compared_with(asked.variant)
    return replace(outcome, detail=f"{outcome.detail}, compared with {compared}; {found.how}")
