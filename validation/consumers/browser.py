"""transformers.js in a browser: the page of `fastvlm-compile demo`, used in a headless Chromium.

The page shows text, so text is compared, word by word. It lets an answer run on where the golden
one was cut at its limit of tokens; there only as many words are looked at.
"""

import contextlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from validation.consumers.comparing import agreement
from validation.consumers.driving import DRIVERS, DriverError, drive
from validation.consumers.dtypes import UNNAMED, dtypes_of, min_agreement
from validation.consumers.golden_cases import ConsumerCase, ConsumerCases, write_cases
from validation.consumers.onnx_expected import compared_with, expected_cases, onnx_files
from validation.consumers.outcome import (
    Environment,
    Outcome,
    not_installed,
    not_run,
    not_supported,
)

CONSUMER = "transformers.js in a browser"
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 900.0
START_S = 60.0


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """One outcome for each ONNX variant."""
    found = {variant: dtypes_of(files) for variant, files in onnx_files(bundle).items()}
    named = [variant for variant, dtypes in found.items() if dtypes is not None]
    labels = [f"onnx.{variant}" for variant in named]
    beside = not_supported(CONSUMER, [f"onnx.{v}" for v in found if v not in named], UNNAMED)
    if not (environment.node_modules / "puppeteer-core").is_dir():
        return not_installed(CONSUMER, labels, environment.node_modules) + beside
    if shutil.which("node") is None:
        return not_run(CONSUMER, labels, "Node 20 or later is not installed") + beside
    if find_chromium() is None:
        reason = f"no Chromium is installed; looked for {', '.join(CHROMIUMS)}"
        return not_run(CONSUMER, labels, reason) + beside
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(bundle, Path(folder), num_scenes=2)
        return tuple(_outcome(bundle, cases, environment, variant) for variant in named) + beside


def find_chromium() -> str | None:
    """The first of `CHROMIUMS` on PATH."""
    return next((path for name in CHROMIUMS if (path := shutil.which(name))), None)


def use_page(
    bundle: Path,
    cases: ConsumerCases,
    environment: Environment,
    *,
    variant: str,
    screenshot: Path | None = None,
) -> dict[str, object]:
    """Serves the demo and asks it all cases with an image.

    Returns:
        What the driver says: `browser`, `texts`, `figures`, `faults`.

    Raises:
        DriverError: the server or the browser ended badly, or the page shows an error.
    """
    with _served(bundle, environment, variant) as url:
        command: list[str | Path] = ["node", DRIVERS / "browser.mjs", environment.node_modules]
        command += [find_chromium() or CHROMIUMS[0], url, cases.file]
        command += [screenshot] if screenshot is not None else []
        return drive(command, timeout_s=TIMEOUT_S)


def _outcome(bundle: Path, cases: ConsumerCases, environment: Environment, variant: str) -> Outcome:
    expected = expected_cases(bundle, cases, variant, onnx_files(bundle)[variant])
    asked = [case for case in expected.cases if case.image]
    version, agreed = "", False
    try:
        document = use_page(bundle, cases, environment, variant=variant)
    except DriverError as error:
        detail = str(error)
    else:
        version = str(document["browser"])
        texts, faults = document["texts"], document["faults"]
        assert isinstance(texts, dict)
        assert isinstance(faults, list)
        limit = cases.contract.max_new_tokens
        shares = [word_agreement(case, texts[case.id], limit) for case in asked]
        least = min_agreement(variant)
        mean = sum(shares) / len(shares)
        agreed = mean >= least and not faults
        detail = (
            f"{shares.count(1.0)} of {len(shares)} answers on screen word for word; {mean:.1%} of "
            f"words (at least {least:.0%} asked), compared with {compared_with(variant)}; in WASM"
        )
        if faults:
            detail = f"the page's console: {faults[0]}"
    return Outcome(
        consumer=CONSUMER,
        version=version,
        variant=f"onnx.{variant}",
        status="agreed" if agreed else "disagreed",
        detail=detail,
    )


def word_agreement(case: ConsumerCase, shown: str, max_new_tokens: int) -> float:
    """Share of words in the place where the expected answer has them."""
    expected, found = case.answer.split(), shown.split()
    if len(case.token_ids) >= max_new_tokens:
        # The last word may have been cut in the middle.
        expected = expected[:-1]
        found = found[: len(expected)]
    return agreement(*_numbered(expected, found))


def _numbered(expected: Sequence[str], found: Sequence[str]) -> tuple[list[int], list[int]]:
    numbers = {word: number for number, word in enumerate({*expected, *found})}
    return [numbers[word] for word in expected], [numbers[word] for word in found]


@contextlib.contextmanager
def _served(bundle: Path, environment: Environment, variant: str) -> Iterator[str]:
    """`fastvlm-compile demo`, as its user runs it; the page's address."""
    command = [sys.executable, "-m", "fastvlm_compile", "demo", str(bundle), "--port", "0"]
    command += ["--variant", variant, "--assets", str(environment.node_modules)]
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=told, text=True
        )
        try:
            assert process.stdout is not None
            url = _first_line(process.stdout)
            if not url.startswith("http://"):
                process.kill()
                process.wait()
                told.seek(0)
                raise DriverError(f"`demo` printed no address: {told.read().strip()[:300]}")
            yield url
        finally:
            process.kill()
            process.wait()


def _first_line(stream: IO[str]) -> str:
    """Empty if none comes in `START_S`."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=START_S).strip()
    except queue.Empty:
        return ""
