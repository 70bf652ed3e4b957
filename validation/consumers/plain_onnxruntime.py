"""Plain onnxruntime: the example in the bundle, run as its reader would run it."""

import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from reference.tokenizer import PromptTokenizer, load_tokenizer
from validation.consumers.comparing import judged
from validation.consumers.golden_cases import ConsumerCase, ConsumerCases, write_cases
from validation.consumers.onnx_expected import compared_with, expected_cases, onnx_files
from validation.consumers.outcome import Environment, Outcome, not_installed, not_run

CONSUMER = "onnxruntime"
ENVIRONMENT = "venv-onnxruntime"
EXAMPLE = "example/answer.py"
TIMEOUT_S = 300.0
"""For one answer, loading included, of a model of some billion weights on a slow machine."""


class _ExampleError(Exception):
    """The example ended badly; the message is its last line."""


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """One outcome for each ONNX variant."""
    variants = onnx_files(bundle)
    labels = [f"onnx.{variant}" for variant in variants]
    if not (bundle / EXAMPLE).is_file():
        return not_run(CONSUMER, labels, f"the bundle has no {EXAMPLE}")
    interpreter = environment.python(ENVIRONMENT)
    if not interpreter.exists():
        return not_installed(CONSUMER, labels, interpreter)
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(bundle, Path(folder))
        return tuple(
            _outcome(bundle, cases, interpreter, variant, files)
            for variant, files in variants.items()
        )


def _outcome(
    bundle: Path,
    cases: ConsumerCases,
    interpreter: Path,
    variant: str,
    files: tuple[str, ...],
) -> Outcome:
    label = f"onnx.{variant}"
    tokenizer = load_tokenizer(bundle)
    try:
        version = _run([interpreter, "-I", "-c", "import onnxruntime as o; print(o.__version__)"])
        answers = {
            case.id: tokenizer.encode(_asked(bundle, interpreter, case, variant, cases))
            for case in cases.cases
        }
    except _ExampleError as error:
        return Outcome(
            consumer=CONSUMER, version="", variant=label, status="disagreed", detail=str(error)
        )
    outcome = judged(
        _as_read(expected_cases(bundle, cases, variant, files), tokenizer),
        answers,
        consumer=CONSUMER,
        version=version,
        variant=label,
    )
    return replace(
        outcome,
        detail=f"{outcome.detail}, compared with {compared_with(variant)}; {EXAMPLE} as it is",
    )


def _asked(
    bundle: Path, interpreter: Path, case: ConsumerCase, variant: str, cases: ConsumerCases
) -> str:
    """What the example prints."""
    images = [case.image] if case.image else []
    limit = str(cases.contract.max_new_tokens)
    options = ["--variant", variant, "--max-new-tokens", limit]
    return _run([interpreter, "-I", bundle / EXAMPLE, *options, "--", case.question, *images])


def _as_read(cases: ConsumerCases, tokenizer: PromptTokenizer) -> ConsumerCases:
    """The example prints text, so the expected tokens are those of the text too."""
    read = (replace(each, token_ids=tuple(tokenizer.encode(each.answer))) for each in cases.cases)
    return replace(cases, cases=tuple(read))


def _run(command: list[str | Path]) -> str:
    """stdout of a command, without the newline at its end."""
    try:
        ended = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            env={"PYTHONIOENCODING": "utf-8", "PATH": ""},
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _ExampleError(f"no answer within {TIMEOUT_S:.0f} s") from None
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise _ExampleError(lines[-1] if lines else f"ended with exit code {ended.returncode}")
    return ended.stdout.removesuffix("\n")
