"""Forecasts and outcomes as text and as plain values."""

import dataclasses
from collections.abc import Sequence

from fastvlm_compile.console import format_bytes, format_duration
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.forecast import Forecast, Total
from fastvlm_compile.estimate.outcomes import Outcomes, StageOutcome
from fastvlm_compile.verdict import Verdict

_NOTHING = "-"


def plan_table(found: Sequence[Verdict], whole: Forecast) -> str:
    """A line a stage: what it takes, and hit or miss with the reason; the total last."""
    rows = [("stage", "memory", "disk", "time", "")]
    rows += [(v.stage, *_cells(None if v.entry else whole.stages[v.stage]), str(v)) for v in found]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join((row[0].ljust(widths[0]), *_right(row[1:4], widths[1:]), row[4])).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, _total_line(whole.total(to_build(found)))])


def to_build(found: Sequence[Verdict]) -> tuple[str, ...]:
    """The stages that are not in the store."""
    return tuple(verdict.stage for verdict in found if verdict.entry is None)


def plan_json(found: Sequence[Verdict], whole: Forecast) -> dict[str, object]:
    """As `plan_table`, with whole numbers."""
    rows = [
        {
            "stage": verdict.stage,
            "state": "miss" if verdict.entry is None else "hit",
            "key": verdict.key,
            "reasons": list(verdict.reasons),
            "estimate": None
            if verdict.entry is not None
            else dataclasses.asdict(whole.stages[verdict.stage]),
        }
        for verdict in found
    ]
    total = whole.total(to_build(found))
    return {"recipe": whole.recipe.name, "stages": rows, "total": dataclasses.asdict(total)}


def outcomes_table(outcomes: Outcomes) -> str:
    """A line a stage that was built: outcome, and estimate as a share of it."""
    if not outcomes.stages:
        return "nothing was built since estimates are recorded"
    head = ("stage", "memory", "", "disk", "", "time", "", "off by more than 25 %")
    rows: list[tuple[str, ...]] = [head]
    rows += [(name, *_outcome_cells(row)) for name, row in sorted(outcomes.stages.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = [
        "  ".join((row[0].ljust(widths[0]), *_right(row[1:7], widths[1:]), row[7])).rstrip()
        for row in rows
    ]
    num_off = sum(1 for row in outcomes.stages.values() if row.off)
    return "\n".join([*lines, f"{num_off} of {len(outcomes.stages)} stages are off"])


def outcomes_json(recipe: str, outcomes: Outcomes) -> dict[str, object]:
    """As `outcomes_table`."""
    rows = [
        {
            "stage": name,
            "estimate": dataclasses.asdict(row.estimate),
            "outcome": dataclasses.asdict(row.outcome),
            "off": list(row.off),
        }
        for name, row in sorted(outcomes.stages.items())
    ]
    return {"recipe": recipe, "stages": rows}


def _cells(estimate: Estimate | None) -> tuple[str, str, str]:
    if estimate is None:
        return _NOTHING, _NOTHING, _NOTHING
    return (
        format_bytes(estimate.memory_bytes),
        format_bytes(estimate.disk_bytes),
        format_duration(estimate.time_s),
    )


def _outcome_cells(row: StageOutcome) -> tuple[str, ...]:
    thought, took = row.estimate, row.outcome
    pairs = (
        (thought.memory_bytes, took.memory_bytes),
        (thought.disk_bytes, took.disk_bytes),
        (thought.time_s, took.time_s),
    )
    shares = [f"x {a / b:.2f}" if b else _NOTHING for a, b in pairs]
    cells = [cell for pair in zip(_cells(took), shares, strict=True) for cell in pair]
    return (*cells, ", ".join(row.off))


def _right(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _total_line(total: Total) -> str:
    if not total.largest:
        return "nothing is to be built"
    return (
        f"at most {format_bytes(total.memory_bytes)} of memory ({total.largest}), "
        f"{format_bytes(total.disk_bytes)} of disk and {format_bytes(total.bundle_bytes)} for the "
        f"bundle, about {format_duration(total.time_s)}"
    )
