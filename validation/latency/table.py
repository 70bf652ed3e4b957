"""A run as a table for a terminal."""

from collections.abc import Sequence

from validation.latency.roofline import bound_of
from validation.latency.samples import LatencyRun, Phase, Roofline, VariantRun
from validation.latency.stability import phase_warnings, run_warnings
from validation.latency.summary import summarize

_HEADER = ("phase", "p50", "p90", "p95", "p99", "MAD", "CV", "runs", "rate", "of the bound")
_RIGHT = (False, *(True,) * 9)


def terminal_table(run: LatencyRun) -> str:
    """All variants one below the other, then what to mistrust."""
    parts = [_head(run)]
    parts += [_variant(each, run.roofline) for each in run.variants]
    parts += ["\n".join(f"warning: {what}" for what in warnings_of(run))]
    return "\n\n".join(part for part in parts if part)


def warnings_of(run: LatencyRun) -> tuple[str, ...]:
    """What is wrong with the machine, then with each phase, each with its cure."""
    found = list(run_warnings(run))
    for each in run.measured().values():
        for phase in each.phases:
            found += [f"{each.key} {phase.name}: {what}" for what in phase_warnings(phase)]
    return tuple(found)


def format_time(seconds: float) -> str:
    """`12.3 us`, `4.56 ms`, `1.23 s`: three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            value = seconds / size
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def format_count(value: float, unit: str) -> str:
    """`12.3 GB`, in powers of ten."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def lay_out(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _head(run: LatencyRun) -> str:
    machine = run.environment
    lines = [
        f"{run.bundle}: {machine.processor}, {machine.num_cores} cores, {machine.threads} threads, "
        f"governor {machine.governor}"
    ]
    if run.roofline is not None:
        reading = format_count(run.roofline.read_bytes_per_s, "B/s")
        computing = format_count(run.roofline.sgemm_flop_per_s, "FLOP/s")
        lines.append(f"the machine reads {reading} and multiplies float32 at {computing}")
    return "\n".join(lines)


def _variant(run: VariantRun, roofline: Roofline | None) -> str:
    if run.status == "not run":
        return f"{run.key}: not run: {run.reason}"
    peak = format_count(max(run.peak_memory_bytes), "B")
    lines = [f"{run.key}: {run.executor}; peak memory {peak}"]
    rows = [_HEADER, *(_row(phase, roofline) for phase in run.phases)]
    lines.append(lay_out(rows, _RIGHT))
    lines += [f"note: {note}" for note in run.notes]
    return "\n".join(lines)


def _row(phase: Phase, roofline: Roofline | None) -> tuple[str, ...]:
    summary = summarize(phase.samples_s)
    times = (summary.p50_s, summary.p90_s, summary.p95_s, summary.p99_s, summary.mad_s)
    rate = f"{phase.num_items / summary.p50_s:.1f} {phase.item}s/s" if phase.item else ""
    reached = "-"
    if phase.work is not None and roofline is not None:
        bound = bound_of(phase.work, roofline)
        reached = f"{bound.fraction(summary.p50_s):.0%} ({bound.limit})"
    return (
        phase.name,
        *map(format_time, times),
        f"{summary.cv:.1%}",
        str(summary.num_runs),
        rate,
        reached,
    )
