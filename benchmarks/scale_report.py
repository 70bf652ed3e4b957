"""The data and the page of `benchmarks.scale`, and the limits that builds are held against."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.page import listed, table
from benchmarks.scale_figures import RecipeFigures, StageFigures
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.outcomes import Off, StageOutcome
from fastvlm_compile.structure import from_plain, to_plain

GIB = 2**30
_MB = 1e6
_GB = 1e9
_MINUTE_S = 60.0
NEVER_OFF = (
    f"{Off.MEMORY_BYTES.value / _MB:.0f} MB, {Off.DISK_BYTES.value / _MB:.0f} MB "
    f"or {Off.TIME_S.value:.0f} s"
)
"""By less than this, as pages say it, no estimate is off."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a build may take; the time, of a whole recipe and without that of making weights up."""

    peak_bytes: int
    time_s: float | None = None


LIMITS: Mapping[str, Limit] = {
    "7b": Limit(peak_bytes=12 * GIB, time_s=90 * _MINUTE_S),
    "1.5b": Limit(peak_bytes=6 * GIB),
    "0.5b": Limit(peak_bytes=4 * GIB),
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """Every recipe that was ever measured, by name."""

    recipes: Mapping[str, RecipeFigures] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One figure beside its limit."""

    recipe: str
    what: str
    found: str
    limit: str
    met: bool


def load_report(path: Path) -> Report:
    """What `write_report` wrote; an empty one where nothing is."""
    source = json_path(path)
    if not source.is_file():
        return Report()
    return from_plain(json.loads(source.read_bytes()), Report)


def write_report(path: Path, report: Report) -> tuple[Path, Path]:
    """Write `path`.json and `path`.md."""
    page = path.with_name(f"{path.name}.md")
    json_path(path).write_text(json.dumps(to_plain(report), indent=1) + "\n", encoding="utf-8")
    page.write_text(markdown(report).rstrip("\n") + "\n", encoding="utf-8")
    return json_path(path), page


def with_figures(report: Report, figures: RecipeFigures) -> Report:
    """Figures in place of those that the recipe had; a whole one's in place of its parts', too."""
    others = {
        name: each
        for name, each in report.recipes.items()
        if figures.recipe not in (name, each.part_of)
    }
    return replace(report, recipes=dict(sorted({**others, figures.recipe: figures}.items())))


def json_path(path: Path) -> Path:
    """Where the data of a report is."""
    return path.with_name(f"{path.name}.json")


def judge(figures: RecipeFigures) -> tuple[Judged, ...]:
    """Every figure of a build that is held against something."""
    name, found = figures.recipe, []

    def add(what: str, text: str, limit: str, *, met: bool) -> None:
        found.append(Judged(recipe=name, what=what, found=text, limit=limit, met=met))

    failed, passed = figures.gates["failed"], figures.gates["passed"]
    whole = "" if figures.whole else ", of the largest stage"
    limit = LIMITS.get(figures.part_of or name)
    if limit is not None:
        add(
            f"peak memory{whole}",
            f"{figures.peak_bytes / GIB:.2f} GiB",
            f"<= {limit.peak_bytes / GIB:.0f} GiB",
            met=figures.peak_bytes <= limit.peak_bytes,
        )
        if limit.time_s is not None and not figures.part_of:
            needed_s = figures.time_s - figures.synthesizing_s
            add(
                "from checkpoint to gated bundle" + ("" if figures.whole else ", sum of stages"),
                f"{needed_s / _MINUTE_S:.1f} min",
                f"<= {limit.time_s / _MINUTE_S:.0f} min",
                met=needed_s <= limit.time_s and failed == 0 and figures.bundle_bytes > 0,
            )
    add("gates", f"{passed} passed, {failed} failed", "none failed", met=failed == 0 and passed > 0)
    return (*found, *_judge_estimates(figures))


def _judge_estimates(figures: RecipeFigures) -> Iterator[Judged]:
    """Of each stage, and of all that were foretold together; a missing estimate is a missed one."""
    foretold = [
        StageOutcome(key="", estimate=each.estimate, outcome=each.took)
        for each in figures.stages
        if each.estimate is not None and not each.resumed
    ]
    if foretold:
        yield from _judge_totals(figures.recipe, foretold)
    for what in ("memory", "disk", "time"):
        num_off = sum(1 for each in foretold if what in each.off)
        yield Judged(
            recipe=figures.recipe,
            what=f"estimates of {what} within 25 %",
            found=f"{len(foretold) - num_off} of {len(figures.stages)} stages",
            limit="all",
            met=num_off == 0 and len(foretold) == len(figures.stages),
        )


def _judge_totals(recipe: str, foretold: Sequence[StageOutcome]) -> Iterator[Judged]:
    """Estimate beside outcome of what decides whether a build is begun."""
    whole = StageOutcome(
        key="",
        estimate=Estimate.together(each.estimate for each in foretold),
        outcome=Estimate.together(each.outcome for each in foretold),
    )
    thought, took = whole.estimate, whole.outcome
    for what, estimate, outcome, unit in (
        ("memory", thought.memory_bytes / GIB, took.memory_bytes / GIB, "GiB"),
        ("disk", thought.disk_bytes / _GB, took.disk_bytes / _GB, "GB"),
        ("time", thought.time_s / _MINUTE_S, took.time_s / _MINUTE_S, "min"),
    ):
        yield Judged(
            recipe=recipe,
            what=f"estimate of all stages' {what}",
            found=f"{estimate:.1f} for {outcome:.1f} {unit}",
            limit="within 25 %",
            met=what not in whole.off,
        )


def markdown(report: Report) -> str:
    """The page."""
    judged = [each for figures in report.recipes.values() for each in judge(figures)]
    rows = [
        (each.recipe, each.what, each.found, each.limit, "met" if each.met else "missed")
        for each in judged
    ]
    lines = [
        "# Building every size on one machine",
        "",
        "Each recipe is built from nothing into an empty store, one after the other, from made-up "
        "weights of the released sizes. `make bench-scale` makes this page.",
        "",
        *table(("recipe", "", "found", "limit", ""), rows),
        "",
        "Peak memory is that of all processes together at one time, 20 looks a second, files that "
        "are mapped not counted: the system can drop those. Making weights up counts for memory, "
        "not for the time. An estimate is that of `plan` from before the build, by the rates of "
        "its day; those of today are in [rates.md](rates.md). One that is off by less than "
        f"{NEVER_OFF} is not off.",
    ]
    for figures in report.recipes.values():
        lines += ["", *_section(figures)]
    return "\n".join(lines)


def _section(figures: RecipeFigures) -> list[str]:
    gates = ", ".join(f"{count} {status}" for status, count in figures.gates.items())
    how = "" if figures.whole else " (the sum of its stages)"
    made_up = f", of which making the weights up took {figures.synthesizing_s / _MINUTE_S:.1f} min"
    log = f" [Its log]({figures.log})." if figures.log else ""
    bundle = f"The bundle has {figures.bundle_bytes / _MB:.0f} MB"
    part = ""
    if figures.part_of:
        part = f" A part of {figures.part_of}, built by itself (`--in-parts`)."
        if figures.whole:
            part += " Stages that an earlier part had built are listed, and not in the time."
    lines = [
        f"## {figures.recipe}",
        "",
        f"{figures.time_s / _MINUTE_S:.1f} min{how}{made_up if figures.synthesizing_s else ''}. "
        f"{bundle}; gates: {gates}.{log}{part}",
        "",
        *table(
            ("stage", "s", "estimate", "peak MB", "estimate", "written MB", "estimate", "off"),
            [_stage_row(each) for each in figures.stages],
        ),
    ]
    if figures.variants:
        rows = [
            (f"{v.target}.{v.variant}", f"{v.bits_per_weight:.2f}", f"{v.size_bytes / _MB:.0f}")
            for v in figures.variants
        ]
        lines += ["", *table(("variant", "bits per weight", "MB"), rows)]
    crowded = ""
    if figures.crowded:
        crowded = ", more than its cores bear: work beside the build made its times longer"
    return [
        *lines,
        "",
        f"Machine: {listed(figures.machine)}. Load over 15 minutes "
        f"{figures.load_15_minutes:.1f} at the end{crowded}.",
    ]


def _stage_row(each: StageFigures) -> Sequence[str]:
    took, thought = each.took, each.estimate
    pairs = (
        (took.time_s, thought.time_s if thought else None, 1.0),
        (took.memory_bytes, thought.memory_bytes if thought else None, _MB),
        (took.disk_bytes, thought.disk_bytes if thought else None, _MB),
    )
    cells = [
        cell
        for value, estimate, unit in pairs
        for cell in (f"{value / unit:.1f}", "" if estimate is None else f"{estimate / unit:.1f}")
    ]
    note = "resumed" if each.resumed else ", ".join(each.off)
    return (f"`{each.stage}`", *cells, note)
