"""An append-only record of runs: one line of JSON for each, never rewritten."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from reference.errors import UserError
from validation.latency.environment import Environment
from validation.latency.samples import LatencyRun, digest_of
from validation.latency.summary import summarize
from validation.typed_json import from_plain, to_plain

SCHEMA = 1
FILE_NAME = "latency.jsonl"
_BARS = "▁▂▃▄▅▆▇█"


class HistoryError(UserError):
    """A history cannot be read or written, or would be damaged by what is added."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One phase of one variant in one run."""

    key: str
    phase: str
    num_runs: int
    p50_s: float
    p95_s: float
    mad_s: float


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run: a line of the file."""

    run_digest: str
    started_at: str
    bundle: str
    bundle_digest: str
    environment: Environment
    points: tuple[Point, ...]


def entry_of(run: LatencyRun) -> Entry:
    """What is kept of a run; the samples stay in its own file."""
    points = []
    for key, variant in run.measured().items():
        for phase in variant.phases:
            summary = summarize(phase.samples_s)
            points.append(
                Point(
                    key=key,
                    phase=phase.name,
                    num_runs=summary.num_runs,
                    p50_s=summary.p50_s,
                    p95_s=summary.p95_s,
                    mad_s=summary.mad_s,
                )
            )
    return Entry(
        run_digest=digest_of(run),
        started_at=run.started_at,
        bundle=run.bundle,
        bundle_digest=run.bundle_digest,
        environment=run.environment,
        points=tuple(points),
    )


def read_history(folder: Path) -> tuple[Entry, ...]:
    """All entries, in the order in which they were added; none where there is no file yet.

    Raises:
        HistoryError: a line is damaged or of another schema; the message names it.
    """
    path = folder / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise HistoryError(f"{path}: cannot be read: {error.strerror}") from None
    lines = content.split(b"\n")
    last = lines.pop()
    if last:
        raise _damaged(path, len(lines) + 1, "it was not written to its end")
    return tuple(_entry(path, number, line) for number, line in enumerate(lines, start=1))


def append(folder: Path, *runs: LatencyRun) -> tuple[Entry, ...]:
    """Adds runs behind all others; what is there is read first and never touched.

    Raises:
        HistoryError: the history is damaged, holds one of these very runs, or cannot be written;
            then none of them is added.
    """
    path, entries = folder / FILE_NAME, tuple(entry_of(run) for run in runs)
    known = {each.run_digest for each in read_history(folder)}
    for entry in entries:
        if entry.run_digest in known:
            raise HistoryError(
                f"{path}: this run is there already", hint="give another file of samples"
            )
        known.add(entry.run_digest)
    lines = "".join(_line(entry) for entry in entries)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One write at the end of the file: two that append at once do not mix their lines.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, lines.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HistoryError(f"{path}: cannot be written: {error.strerror}") from None
    return entries


def sparkline(values: tuple[float, ...]) -> str:
    """One character a value, low to high between the least and the most."""
    low, high = min(values), max(values)
    if not high > low:
        return _BARS[0] * len(values)
    steps = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / (high - low) * steps)] for value in values)


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        document = json.loads(line)
        schema = document.pop("schema", None) if isinstance(document, dict) else None
    except ValueError as error:
        raise _damaged(path, number, f"not JSON: {error}") from None
    if schema != SCHEMA:
        raise _damaged(path, number, f"expected schema {SCHEMA}, found {schema!r}")
    try:
        return from_plain(document, Entry)
    except ValueError as error:
        raise _damaged(path, number, str(error)) from None


def _damaged(path: Path, number: int, what: str) -> HistoryError:
    return HistoryError(
        f"{path}, line {number}: damaged: {what}",
        hint="bring the line back from a copy, or take it out by hand; nothing was changed",
    )


def _line(entry: Entry) -> str:
    plain = to_plain(entry)
    assert isinstance(plain, dict)
    document = {"schema": SCHEMA, **plain}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
