"""The parent's side of a timing process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO

from fastvlm_compile.child import lines_and_ticks
from fastvlm_compile.latency.request import Request, Speeds, encode, not_run
from validation.latency.samples import VariantRun
from validation.typed_json import from_plain

_TICK_S = 0.5
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_THREAD_VARIABLES_OF_APPLE = ("VECLIB_MAXIMUM_THREADS",)

Tell = Callable[[str], None]


def time_variant(request: Request, tell: Tell) -> VariantRun:
    """Times a variant in a process of its own; one that dies is a variant that was not run."""
    assert request.job is not None
    kind, value, how = _run(request, tell)
    if kind == "variant":
        return from_plain(value, VariantRun)
    return not_run(request.job, how)


def probe_speeds(request: Request, tell: Tell) -> Speeds | None:
    """Measures the machine in a process of its own; None where that died."""
    assert request.job is None
    kind, value, _ = _run(request, tell)
    return from_plain(value, Speeds) if kind == "speeds" else None


def _run(request: Request, tell: Tell) -> tuple[str, object, str]:
    """The kind and the value of the last line, and how the process ended."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        results_read, results_write = os.pipe()
        results = stack.enter_context(os.fdopen(results_read, "rb", buffering=0))
        try:
            child = _start(results_write, request.settings.threads, log)
        finally:
            os.close(results_write)
        try:
            kind, value = _listen(child, request, results, tell)
            status = child.wait()
        finally:
            _kill(child)
        log.seek(0)
        return kind, value, _ending(status, log.read())


def _start(descriptor: int, threads: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    names = (*_THREAD_VARIABLES, *_THREAD_VARIABLES_OF_APPLE)
    command = [sys.executable, "-P", "-m", "fastvlm_compile.latency.worker", str(descriptor)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        pass_fds=(descriptor,),
        env={
            **os.environ,
            **dict.fromkeys(names, str(threads)),
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        },
        start_new_session=True,  # Ctrl-C is ours to handle; and it makes a group to kill
    )


def _listen(
    child: subprocess.Popen[bytes], request: Request, results: IO[bytes], tell: Tell
) -> tuple[str, object]:
    """Pass progress on; the last line that was no progress."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once; its log tells why
        child.stdin.write(encode(request, kind="request").encode())
        child.stdin.flush()  # and it stays open: it is the child's lifeline
    found: tuple[str, object] = ("nothing", None)
    latest = "starting"
    for line in lines_and_ticks(results.fileno(), tick_s=_TICK_S):
        if line is not None:
            document = json.loads(line)
            if document["kind"] != "progress":
                found = (document["kind"], document["value"])
                continue
            latest = str(document["value"])
        tell(latest)
    return found


def _ending(status: int, log: bytes) -> str:
    if -status == signal.SIGKILL:
        return "the process was killed (SIGKILL): most often for want of memory"
    if status < 0:
        return f"the process ended with signal {signal.Signals(-status).name}"
    words = [line for line in log.decode(errors="replace").splitlines() if line.strip()]
    return words[-1].strip() if words else f"the process ended with code {status}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
