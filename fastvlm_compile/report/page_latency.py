"""Times on the page: quality against speed, and how the runs of each phase are spread."""

from collections.abc import Sequence

from fastvlm_compile.report.html import Column, Markup, facts, folded, join, rows_of, table, tag
from fastvlm_compile.report.latency_plot import Spread, latency_plot
from fastvlm_compile.report.page_data import Latency, PhaseLine, ReportData
from fastvlm_compile.report.page_sections import figure
from fastvlm_compile.report.speed_plot import speed_plot
from validation.gate_table import format_number
from validation.latency.samples import KINDS, kind_of
from validation.latency.table import format_count, format_time

_COLUMNS = (
    Column(title="runtime and variant"),
    *(
        Column(title=name, number=True)
        for name in ("runs", "p50", "p90", "p95", "p99", "MAD", "CV", "per second")
    ),
)


def speed_section(data: ReportData) -> Markup:
    """The plot, where variants have both."""
    if data.latency is None:
        return Markup("")
    rows = [line.quality for line in data.variants]
    plot = speed_plot(data.name, data.latency, rows, ids="speed-")
    return figure(plot) if plot else Markup("")


def latency_section(data: ReportData) -> Markup:
    """The machine, what to mistrust, and every phase."""
    latency = data.latency
    if latency is None:
        return Markup("")
    parts: list[str] = [_machine(latency)]
    if not latency.same_bundle:
        said = (
            "The samples are of other files than the bundle's present ones: it was built again "
            "since."
        )
        parts.append(tag("p", said, class_="warning"))
    if latency.warnings:
        items = (tag("li", warning) for warning in latency.warnings)
        parts += [tag("p", "What to mistrust:", class_="warning"), tag("ul", *items)]
    phases: dict[str, list[PhaseLine]] = {}
    for line in latency.phases:
        phases.setdefault(line.phase, []).append(line)
    for number, name in enumerate(sorted(phases, key=_order)):
        parts.append(_phase(name, phases[name], latency, ids=f"latency-{number}-"))
    for run in latency.run.variants:
        if run.status == "not run":
            parts.append(tag("p", f"{run.key} was not run: {run.reason}"))
    return join(parts, "\n")


def _order(phase: str) -> tuple[int, int, str]:
    """Short prompts before long ones."""
    kind, _, length = phase.partition(".")
    known = KINDS.index(kind_of(phase)) if kind in KINDS else len(KINDS)
    return known, int(length) if length.isdecimal() else 0, phase


def _machine(latency: Latency) -> Markup:
    run = latency.run
    machine = run.environment
    pairs = [
        ("processor", f"{machine.processor}, {machine.num_cores} cores"),
        ("threads", str(machine.threads)),
        ("memory", format_count(machine.memory_bytes, "B")),
        ("governor", machine.governor),
        ("system", f"{machine.system}, Python {machine.python}"),
        ("versions", ", ".join(f"{name} {v}" for name, v in sorted(machine.versions.items()))),
        ("begun", run.started_at),
    ]
    if run.roofline is not None:
        reading = format_count(run.roofline.read_bytes_per_s, "B/s")
        computing = format_count(run.roofline.sgemm_flop_per_s, "FLOP/s")
        pairs.append(("the machine itself", f"reads {reading}, multiplies float32 at {computing}"))
    return facts(pairs)


def _phase(name: str, lines: Sequence[PhaseLine], latency: Latency, *, ids: str) -> Markup:
    samples = {
        (run.runtime, run.variant): phase.samples_s
        for run in latency.run.variants
        for phase in run.phases
        if phase.name == name
    }
    spreads = [
        Spread(
            label=f"{line.runtime} {line.variant}",
            samples_s=samples[line.runtime, line.variant],
            summary=line.summary,
        )
        for line in lines
    ]
    plot = figure(latency_plot(name, spreads, ids=ids))
    cells = [_cells(line) for line in lines]
    return folded(name, plot, table(f"Times of {name}", _COLUMNS, [("", rows_of(cells))]))


def _cells(line: PhaseLine) -> tuple[str, ...]:
    s = line.summary
    times = map(format_time, (s.p50_s, s.p90_s, s.p95_s, s.p99_s, s.mad_s))
    rate = "-"
    if line.items_per_s is not None:
        rate = f"{format_number(line.items_per_s)} {line.item}s"
    name = f"{line.runtime} {line.variant}"
    return (name, str(s.num_runs), *times, f"{s.cv:.1%}", rate)
