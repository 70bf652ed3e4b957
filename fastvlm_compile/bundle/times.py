"""How fast a bundle's variants were, for its card: medians of the samples that it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.bundle.layout import timed_as
from validation.latency.pair import read_one
from validation.latency.samples import DECODE, FIRST_TOKEN, LatencyRun, VariantRun
from validation.latency.summary import summarize

LATENCY_FILE = "reports/latency.json"


@dataclass(frozen=True, kw_only=True)
class VariantTimes:
    """Medians of one variant, seconds; None where a phase was not measured.

    Attributes:
        first_token_s: from an image and a question to the first token.
        decode_s: of a further token.
        units: Core ML's compute units; empty elsewhere.
    """

    first_token_s: float | None
    decode_s: float | None
    units: str


@dataclass(frozen=True, kw_only=True)
class Times:
    """All that was measured, and on what.

    Attributes:
        machine: in a few words.
        variants: (target, variant) -> one row for each choice of compute units.
    """

    machine: str
    variants: Mapping[tuple[str, str], Sequence[VariantTimes]]


def times_of(folder: Path) -> Times | None:
    """What `latency --record` wrote into a bundle; None where it did not.

    Raises:
        SamplesError: the file is damaged.
    """
    path = folder / LATENCY_FILE
    return _times(read_one(path)) if path.is_file() else None


def _times(run: LatencyRun) -> Times:
    found: dict[tuple[str, str], list[VariantTimes]] = {}
    for each in run.measured().values():
        target, variant, units = timed_as(each.runtime, each.variant)
        if target:
            row = VariantTimes(
                first_token_s=_median(each, FIRST_TOKEN),
                decode_s=_median(each, DECODE),
                units=units,
            )
            found.setdefault((target, variant), []).append(row)
    machine = run.environment
    return Times(
        machine=f"{machine.processor}, {machine.num_cores} cores, {machine.threads} threads",
        variants=found,
    )


def _median(run: VariantRun, name: str) -> float | None:
    for phase in run.phases:
        if phase.name == name and phase.samples_s:
            return summarize(phase.samples_s).p50_s
    return None
