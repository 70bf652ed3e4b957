"""Two runs side by side: what changed, whether that is more than chance, and what may not be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from validation.latency.environment import EnvironmentsDifferError, differences
from validation.latency.samples import LatencyRun, Phase, VariantRun
from validation.latency.significance import (
    ALPHA,
    MIN_RUNS,
    Interval,
    mann_whitney_p,
    ratio_interval,
)
from validation.latency.summary import quantile
from validation.latency.thresholds import Threshold, ThresholdError, meant_by

Verdict = Literal["slower", "faster", "no difference", "too few runs"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One quantile of one phase of one variant."""

    key: str
    """`onnxruntime/int4`."""
    phase: str
    quantile: str
    base_s: float
    new_s: float
    interval: Interval
    """Of the ratio new over base."""
    p: float
    """Of the U test over all samples, whichever the quantile."""
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """New over base."""
        return self.new_s / self.base_s


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A change that a threshold speaks of."""

    threshold: Threshold
    change: Change

    @property
    def failed(self) -> bool:
        """Whether it is significant and over the threshold; what is not a number fails."""
        within = self.change.ratio - 1 <= self.threshold.most
        return not within and self.change.verdict == "slower"

    @property
    def status(self) -> Literal["passed", "failed", "not judged"]:
        """`not judged` where there are too few runs for anything to be significant."""
        if self.change.verdict == "too few runs":
            return "not judged"
        return "failed" if self.failed else "passed"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that can be said of two runs."""

    base: str
    new: str
    """What they are called in tables."""
    interleaved: bool
    """Whether they ran turn by turn in one session."""
    environment_differences: tuple[str, ...]
    changes: tuple[Change, ...]
    """Medians, of every phase that both have."""
    judged: tuple[Judged, ...]
    notes: tuple[str, ...]
    """What only one of them has, and what weakens the comparison."""

    @property
    def failed(self) -> tuple[Judged, ...]:
        """What is significantly over its threshold."""
        return tuple(each for each in self.judged if each.failed)


def compare(
    base: LatencyRun,
    new: LatencyRun,
    thresholds: Sequence[Threshold] = (),
    *,
    names: tuple[str, str] = ("base", "new"),
    interleaved: bool = False,
    allow_different_environments: bool = False,
) -> Comparison:
    """Compares every phase of every variant that both runs have.

    Raises:
        EnvironmentsDifferError: they ran on different machines or libraries, and that is not
            allowed.
        ThresholdError: the runs have nothing in common, or not what a threshold speaks of.
    """
    found = differences(base.environment, new.environment)
    if found and not allow_different_environments:
        raise EnvironmentsDifferError(
            "the two were measured in different environments: " + "; ".join(found),
            hint="measure both here (give two bundles), or say --allow-different-environments",
        )
    pairs = _pairs(base, new)
    if not pairs:
        raise ThresholdError(
            f"the two have no phase of a variant in common: {_keys(base)} and {_keys(new)}",
            hint="measure the same --runtime and --variant of both",
        )
    return Comparison(
        base=names[0],
        new=names[1],
        interleaved=interleaved,
        environment_differences=found,
        changes=tuple(change_of(key, one, other) for key, one, other in pairs),
        judged=tuple(judged for limit in thresholds for judged in _judge(limit, pairs)),
        notes=(*_only_one(base, new, names), *_weaknesses(pairs, interleaved=interleaved)),
    )


def change_of(key: str, base: Phase, new: Phase, name: str = "p50") -> Change:
    """How a quantile of a phase changed."""
    p = mann_whitney_p(base.samples_s, new.samples_s)
    interval = ratio_interval(base.blocks, new.blocks, quantile=name)
    base_s, new_s = quantile(base.samples_s, name), quantile(new.samples_s, name)
    verdict: Verdict = "no difference"
    # U speaks of where the samples lie, so a tail is judged by its interval alone.
    significant = interval.leaves_out_one and (p < ALPHA or name != "p50")
    if min(len(base.samples_s), len(new.samples_s)) < MIN_RUNS:
        verdict = "too few runs"
    elif significant:
        verdict = "slower" if new_s > base_s else "faster"
    return Change(
        key=key,
        phase=base.name,
        quantile=name,
        base_s=base_s,
        new_s=new_s,
        interval=interval,
        p=p,
        verdict=verdict,
    )


_Pairs = Sequence[tuple[str, Phase, Phase]]


def _pairs(base: LatencyRun, new: LatencyRun) -> _Pairs:
    found, others = [], new.measured()
    for key, run in base.measured().items():
        phases = {phase.name: phase for phase in others[key].phases} if key in others else {}
        found += [(key, one, phases[one.name]) for one in run.phases if one.name in phases]
    return found


def _judge(threshold: Threshold, pairs: _Pairs) -> list[Judged]:
    places = {(key, one.name): (key, one, other) for key, one, other in pairs}
    return [
        Judged(threshold=threshold, change=change_of(*places[place], threshold.quantile))
        for place in meant_by(threshold, list(places), of="both runs have")
    ]


def _only_one(base: LatencyRun, new: LatencyRun, names: tuple[str, str]) -> list[str]:
    notes = []
    for name, run, other in ((names[0], base, new), (names[1], new, base)):
        theirs = other.measured()
        for each in run.variants:
            if each.status == "not run":
                notes.append(f"{each.key} of {name} was not run: {each.reason}")
            elif each.key not in theirs:
                notes.append(f"only {name} has {each.key}")
            else:
                known = {phase.name for phase in theirs[each.key].phases}
                alone = [phase.name for phase in each.phases if phase.name not in known]
                notes += [f"only {name} has {each.key} {phase}" for phase in alone]
    return notes


def _weaknesses(pairs: _Pairs, *, interleaved: bool) -> list[str]:
    notes = []
    if not interleaved:
        notes.append(
            "stored samples: the machine may have changed between the two; two bundles are "
            "measured turn by turn"
        )
    if any(min(len(one.blocks), len(other.blocks)) < 2 for _, one, other in pairs):
        notes.append(
            "one process a side: what differs from process to process looks like a difference of "
            "the two; --processes 4 when measuring"
        )
    return notes


def _keys(run: LatencyRun) -> str:
    measured: list[VariantRun] = list(run.measured().values())
    return ", ".join(each.key for each in measured) or "nothing measured"
