"""The page of `benchmarks.rates`: recorded stages beside the estimates of `plan`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.page import table
from benchmarks.scale_report import NEVER_OFF
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.outcomes import StageOutcome

_MB = 1e6
_ASPECTS = ("memory", "disk", "time")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A recorded stage.

    Attributes:
        recipe: its file's name.
        stage: its name.
        estimate: by some rates, its time at the pace of the recipe.
        took: what was recorded.
        timed: whether its time counts.
        pace: of the recipe: how many times as long as by these rates its stages took.
    """

    recipe: str
    stage: str
    estimate: Estimate
    took: Estimate
    timed: bool
    pace: float

    @property
    def off(self) -> tuple[str, ...]:
        """What is off by more than a quarter; a time that does not count is not."""
        took = self.took if self.timed else replace(self.took, time_s=self.estimate.time_s)
        return StageOutcome(key="", estimate=self.estimate, outcome=took).off


def lines(rows: Iterable[Beside]) -> list[str]:
    """Each stage in a line."""
    return [
        f"{row.recipe:16} {row.stage:32} "
        f"{row.estimate.memory_bytes / _MB:8.1f} MB of {row.took.memory_bytes / _MB:8.1f}  "
        f"{row.estimate.disk_bytes / _MB:8.1f} MB of {row.took.disk_bytes / _MB:8.1f}  "
        f"{row.estimate.time_s:7.1f} s of {_time(row):>7}  {', '.join(row.off)}"
        for row in rows
    ]


def markdown(fitted: Sequence[Beside], left_out: Sequence[Beside]) -> str:
    """The page.

    Args:
        fitted: estimates by rates that were fitted to all of these stages.
        left_out: estimates by rates that were fitted to the other recipes alone.
    """
    off = [
        (
            row.recipe,
            f"`{row.stage}`",
            f"{row.estimate.memory_bytes / _MB:.0f} / {row.took.memory_bytes / _MB:.0f}",
            f"{row.estimate.disk_bytes / _MB:.0f} / {row.took.disk_bytes / _MB:.0f}",
            f"{row.estimate.time_s:.0f} / {_time(row, digits=0)}",
            ", ".join(row.off),
        )
        for row in fitted
        if row.off
    ]
    return "\n".join(
        (
            "# What `plan` says, and what stages took",
            "",
            "How many of the recorded stages of each recipe have an estimate within 25 %. "
            "`python -m benchmarks.rates` makes this page. Pace: how many times as long as by the "
            "rates the stages of a recipe took, by their median; a machine that others use, too, "
            "is slower on one day than on another. Times are compared at the pace of their "
            "recipe, those of a crowded machine not at all. What is off by less than "
            f"{NEVER_OFF} is not off.",
            "",
            "## By the rates of the package, which are fitted to all of these",
            "",
            *_summary(fitted),
            "",
            "## By rates that are fitted to the other recipes alone",
            "",
            *_summary(left_out),
            "",
            "## What is off by the rates of the package",
            "",
            *table(("recipe", "stage", "MB, estimate / found", "written MB", "s", "off"), off),
        )
    )


def _summary(rows: Sequence[Beside]) -> list[str]:
    found = []
    for recipe in dict.fromkeys(row.recipe for row in rows):
        own = [row for row in rows if row.recipe == recipe]
        num_timed = sum(row.timed for row in own)
        counts = [
            f"{of - sum(what in row.off for row in own)} of {of}"
            for what, of in zip(_ASPECTS, (len(own), len(own), num_timed), strict=True)
        ]
        found.append((recipe, *counts, f"{own[0].pace:.2f}"))
    return table(("recipe", *_ASPECTS, "pace"), found)


def _time(row: Beside, *, digits: int = 1) -> str:
    return f"{row.took.time_s:.{digits}f}" if row.timed else "-"
