"""Every consumer that is named is there, and one that is not installed says so."""

import inspect
from pathlib import Path

import pytest

from validation.consumers.outcome import HOW_TO_INSTALL, Environment, Outcome, not_installed
from validation.consumers.registry import CONSUMERS, Consumer


def test_names_are_given_once() -> None:
    assert len({each.name for each in CONSUMERS}) == len(CONSUMERS)


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda each: each.name)
def test_the_module_of_a_consumer_has_its_check(consumer: Consumer) -> None:
    assert list(inspect.signature(consumer.load()).parameters) == ["bundle", "environment"]


def test_an_environment_that_is_missing_is_told_with_how_to_mend_it(tmp_path: Path) -> None:
    python = Environment(root=tmp_path / "here").python("venv-genai")
    (outcome,) = not_installed("onnxruntime-genai", ["onnx.fp32"], python)
    assert outcome == Outcome(
        consumer="onnxruntime-genai",
        version="",
        variant="onnx.fp32",
        status="not_run",
        detail=f"its environment venv-genai is not installed (`{HOW_TO_INSTALL}`)",
    )
