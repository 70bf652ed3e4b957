"""Plain onnxruntime: the example in the bundle, run as its reader would run it."""

import subprocess
from dataclasses import replace
from pathlib import Path

from reference.tokenizer import PromptTokenizer, load_tokenizer
from validation.consumers.driving import DriverError
from validation.consumers.golden_cases import ConsumerCase, ConsumerCases
from validation.consumers.onnx_consumer import Answered, Asked, OnnxConsumer, check_variants
from validation.consumers.outcome import Environment, Outcome

EXAMPLE = "example/answer.py"
TIMEOUT_S = 300.0
"""For one answer, loading included, of a model of some billion weights on a slow machine."""


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """One outcome for each ONNX variant."""
    consumer = OnnxConsumer(
        name="onnxruntime", environment="venv-onnxruntime", needs=EXAMPLE, answer=_answer
    )
    return check_variants(consumer, bundle, environment)


def _answer(asked: Asked) -> Answered:
    tokenizer = load_tokenizer(asked.bundle)
    version = "import onnxruntime as o; print(o.__version__)"
    return Answered(
        version=_run([asked.interpreter, "-I", "-c", version]),
        answers={case.id: tokenizer.encode(_printed(asked, case)) for case in asked.cases.cases},
        expected=_as_read(asked.expected, tokenizer),
        how=f"{EXAMPLE} as it is",
    )


def _printed(asked: Asked, case: ConsumerCase) -> str:
    """What the example prints."""
    images = [case.image] if case.image else []
    limit = str(asked.cases.contract.max_new_tokens)
    options = ["--variant", asked.variant, "--max-new-tokens", limit]
    example = asked.bundle / EXAMPLE
    return _run([asked.interpreter, "-I", example, *options, "--", case.question, *images])


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
        raise DriverError(f"no answer within {TIMEOUT_S:.0f} s") from None
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise DriverError(lines[-1] if lines else f"ended with exit code {ended.returncode}")
    return ended.stdout.removesuffix("\n")
