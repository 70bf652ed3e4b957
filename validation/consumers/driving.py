"""A driver in another interpreter: a command line in, a JSON document out."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

DRIVERS = Path(__file__).parent / "drivers"
"""Scripts that use a consumer's packages and a bundle's files, and nothing of ours."""


class DriverError(Exception):
    """The consumer ended badly; the message is one line: its last words, or what was wrong."""


def python_driver(interpreter: Path, script: str) -> tuple[str, ...]:
    """The command for `drivers/<script>`, isolated from this process's packages."""
    return (str(interpreter), "-I", str(DRIVERS / script))


def drive(
    command: Sequence[str | Path],
    *,
    timeout_s: float,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Runs a driver to its end.

    Args:
        command: interpreter, script and arguments.
        timeout_s: after which it and all that it started are killed.
        folder: to run in; this process's own if not given.
        variables: of the environment, beside those that are set here.

    Returns:
        The JSON object on the last line of stdout; consumers may chat on the lines before it.

    Raises:
        DriverError: it ended with an error or a signal, took too long or printed no such object.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, **(variables or {})},
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise DriverError(f"no answer within {timeout_s:.0f} s") from None
    finally:
        # Also what the driver itself started, such as a browser.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise DriverError(_last_line(stderr) or _ending(process.returncode))
    return _document(stdout)


def _document(stdout: str) -> dict[str, object]:
    line = _last_line(stdout)
    try:
        document = json.loads(line)
    except ValueError:
        raise DriverError(f"its last line is not JSON: {line[:200]!r}") from None
    if not isinstance(document, dict):
        raise DriverError(f"its last line is not a JSON object: {line[:200]!r}")
    return document


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"ended by signal {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode} and said nothing"
