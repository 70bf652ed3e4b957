"""The child process that times one variant: `python -m fastvlm_compile.latency.worker RESULT_FD`.

Reads a `Request` as one line from stdin and writes lines to the descriptor RESULT_FD. stdout and
stderr are whatever the libraries say. When stdin ends the parent is gone, and this process ends.
"""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.latency.inputs import inputs_of
from fastvlm_compile.latency.memory import peak_memory_bytes
from fastvlm_compile.latency.phases import Stopwatch
from fastvlm_compile.latency.probe import measure_speeds
from fastvlm_compile.latency.request import Job, Request, decode_request, encode, not_run
from fastvlm_compile.latency.subject import Subject, Weights, open_subject
from fastvlm_compile.latency.work import Bounds
from reference.errors import UserError
from validation.latency.samples import VariantRun


def main(result_fd: int) -> None:
    """Do what stdin asks for, tell the result and exit."""
    line = sys.stdin.readline()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.set_inheritable(result_fd, False)  # noqa: FBT003 - it takes no keywords
    with os.fdopen(result_fd, "w", encoding="utf-8", buffering=1) as results:
        request = decode_request(line)
        if request.job is None:
            results.write(encode(measure_speeds(request.settings.threads), kind="speeds"))
        else:
            results.write(encode(_measured(request, request.job, results), kind="variant"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libraries with threads of their own may hang in an orderly exit


def _measured(request: Request, job: Job, results: IO[str]) -> VariantRun:
    try:
        return measure_variant(request, job, lambda what: _tell(results, what))
    except UserError as error:
        return not_run(job, error.message)


def measure_variant(request: Request, job: Job, tell: Callable[[str], None]) -> VariantRun:
    """Opens a variant and times it, all in this process.

    Raises:
        UserError: the runtime is not installed, or the bundle is damaged.
    """
    bundle, settings = Path(request.bundle), request.settings
    manifest = read_manifest(bundle)
    inputs = inputs_of(bundle, manifest.contract)

    def reopen() -> Subject:
        return open_subject(bundle, manifest, job, settings.threads)

    watch = Stopwatch(inputs, settings, request.num_new_tokens, tell)
    tell("opening")
    opened = _timed(watch, reopen)
    watch.time_loads(reopen)
    notes = watch.notes
    if not opened.separate_projector:
        notes.append("the projector is part of the vision graph, and timed there")
    if not opened.weights.decoder:
        notes.append(
            "bytes of the graphs are not known: `onnx`, which reads them, is not installed"
        )
    if job.runtime == "coreml":
        from fastvlm_compile.latency.placement import placement_notes

        notes += placement_notes(bundle, manifest, job)
    bounds = Bounds(
        inputs=inputs, weights=opened.weights, separate_projector=opened.separate_projector
    )
    return VariantRun(
        runtime=job.runtime,
        variant=job.label,
        executor=opened.executor,
        status="measured",
        reason="",
        phases=watch.phases(bounds),
        peak_memory_bytes=(opened.peak_memory_bytes,),
        notes=tuple(notes),
    )


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What is known of a variant that is not open any more."""

    executor: str
    weights: Weights
    separate_projector: bool
    peak_memory_bytes: int


def _timed(watch: Stopwatch, open_it: Callable[[], Subject]) -> _Opened:
    subject = open_it()
    watch.time_all(subject)
    return _Opened(
        peak_memory_bytes=peak_memory_bytes(),
        executor=subject.executor,
        weights=subject.weights(),
        separate_projector=subject.project is not None,
    )


def _tell(results: IO[str], what: str) -> None:
    results.write(encode(what, kind="progress"))


def _die_with_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
