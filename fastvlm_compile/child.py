"""The parent's side of a stage's child process."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.memory_meter import MemoryMeter
from fastvlm_compile.progress import Progress
from fastvlm_compile.worker import Message, Request, decode_message, encode_request

_TICK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a child ended and what it cost."""

    message: Message | None
    """Its last word; None when it died without one."""
    exit_status: int
    """Its exit code; negative for the signal that killed it."""
    duration_s: float
    peak_memory_bytes: int
    """Of all its processes together, mapped files not counted (see `memory_meter`); where no system
    file tells that, the resident set of the child alone."""


def run_child(
    request: Request, config: object, *, log: Path, lock: int, progress: Progress
) -> Outcome:
    """Run a stage's function in a child process and wait for its end.

    The child ends with us, however we end: by Ctrl-C it is killed here, by `kill -9` it sees its
    stdin close. Until it has ended it holds our lock: a long call in native code may keep it from
    seeing anything, and what it writes after that must not meet the next builder's files.

    Args:
        request: what to run.
        config: the stage's config.
        log: takes the child's stdout and stderr; replaced.
        lock: descriptor of the lock over the folder that the stage fills.
        progress: told what the child tells; called with what it told last on every tick as well,
            so that a clock can be shown.

    Raises:
        OSError: the log cannot be written or the child cannot be started.
    """
    started_s = time.monotonic()
    results_read, results_write = os.pipe()
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(os.fdopen(results_read, "rb", buffering=0))
        try:
            log_file = stack.enter_context(log.open("wb"))
            # Without a fixed hash seed a library's iteration over a set of names may change the
            # order of what it writes from one build to the next.
            command = ["env", "PYTHONHASHSEED=0", sys.executable, "-P"]
            command += ["-m", "fastvlm_compile.worker", str(results_write)]
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log_file,
                stderr=log_file,
                pass_fds=(results_write, lock),
                start_new_session=True,  # Ctrl-C is ours to handle; and it makes a group to kill
            )
        finally:
            os.close(results_write)
        meter = stack.enter_context(MemoryMeter(child.pid))
        try:
            message = _listen(child, encode_request(request, config), results.fileno(), progress)
        except BaseException:
            _kill(child)
            raise
        usage = _reap(child)
        peak = meter.peak.allocated if meter.works_here() else usage.peak_resident_bytes
    return Outcome(
        message=message,
        exit_status=usage.exit_status,
        duration_s=time.monotonic() - started_s,
        peak_memory_bytes=peak,
    )


def _listen(
    child: subprocess.Popen[bytes], request: bytes, results: int, progress: Progress
) -> Message | None:
    """Pass progress on until the child's last word, or until it closes its end without one."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once; the log tells why
        child.stdin.write(request)
        child.stdin.flush()  # and it stays open: it is the child's lifeline
    latest = Message(kind="progress")
    for line in lines_and_ticks(results, tick_s=_TICK_S):
        if line is not None:
            latest = decode_message(line)
            if latest.kind != "progress":
                return latest
        progress(latest.done, latest.total, latest.text)
    return None


def lines_and_ticks(descriptor: int, *, tick_s: float) -> Iterator[bytes | None]:
    """Whole lines of a pipe as they come, and None whenever `tick_s` passed without any."""
    rest = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], tick_s)
        if not ready:
            yield None
            continue
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


@dataclass(frozen=True, kw_only=True)
class _Usage:
    exit_status: int
    peak_resident_bytes: int


def _reap(child: subprocess.Popen[bytes]) -> _Usage:
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    _kill_group(child)  # whatever the stage started and forgot
    assert child.stdin is not None
    child.stdin.close()
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) of the two systems
    return _Usage(exit_status=child.returncode, peak_resident_bytes=usage.ru_maxrss * unit)


def _kill(child: subprocess.Popen[bytes]) -> None:
    _kill_group(child)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
