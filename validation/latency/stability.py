"""What makes a measurement untrustworthy, said together with its cure."""

from collections.abc import Sequence

import numpy as np

from validation.latency.environment import NOT_TOLD
from validation.latency.samples import LatencyRun, Phase
from validation.latency.significance import ALPHA, MIN_RUNS, mann_whitney_p
from validation.latency.summary import MAD_TO_SIGMA, summarize

_MOST_CV = 0.1
"""What a quiet machine stays well below for anything that takes longer than a millisecond."""
_MOST_DRIFT = 0.05
"""Between the first and the last third: as large as the regressions that are looked for."""
_OUTLIER_SIGMAS = 5.0
_MOST_OUTLIERS = 0.05
_MOST_OTHERS = 0.25
"""Of one processor: what others may take before it shows in ours."""
_MOST_ROOFLINE_DRIFT = 1.2


def phase_warnings(phase: Phase) -> tuple[str, ...]:
    """What is wrong with the samples of one phase."""
    samples = phase.samples_s
    if len(samples) < MIN_RUNS:
        return (f"only {len(samples)} runs; cure: a larger --min-runs",)
    found = []
    summary = summarize(samples)
    outliers = _share_of_outliers(samples, summary.p50_s, summary.mad_s)
    if outliers > _MOST_OUTLIERS:
        found.append(
            f"{outliers:.0%} of the runs are far from the rest; cure: end other programs, and read "
            "p50 and MAD rather than p99"
        )
    elif summary.cv > _MOST_CV:
        found.append(
            f"the times vary by {summary.cv:.0%} (coefficient of variation); cure: end other "
            "programs, fewer --threads than cores, a larger --min-seconds"
        )
    found += [_drift_text(drift) for block in phase.blocks if (drift := _drift(block))]
    return tuple(found)


def run_warnings(run: LatencyRun) -> tuple[str, ...]:
    """What is wrong with the machine during a run."""
    found = []
    others = run.conditions.others_during
    if others > _MOST_OTHERS:
        found.append(
            f"other programs kept {others:.1f} processors busy meanwhile; cure: end them, or "
            "measure when the machine is idle"
        )
    elif others < 0 and run.conditions.load_before > run.environment.num_cores / 2:
        found.append(
            f"the load was {run.conditions.load_before:.1f} before it began; cure: wait until the "
            "machine is idle"
        )
    if run.environment.threads > run.environment.num_cores:
        found.append(
            f"{run.environment.threads} threads share {run.environment.num_cores} cores; cure: "
            "--threads with at most as many as cores"
        )
    if run.environment.governor not in (NOT_TOLD, "performance"):
        found.append(
            f"the frequency governor is {run.environment.governor}; cure: "
            "`cpupower frequency-set --governor performance`"
        )
    if run.roofline is not None and run.roofline.drift > _MOST_ROOFLINE_DRIFT:
        found.append(
            f"the machine itself became {run.roofline.drift - 1:.0%} faster or slower between "
            "begin and end; cure: let it cool, forbid boost frequencies, or use a machine that is "
            "not shared"
        )
    return tuple(found)


def _share_of_outliers(samples: Sequence[float], median: float, mad: float) -> float:
    if not mad > 0:
        return 0.0
    far = np.abs(np.asarray(samples) - median) > _OUTLIER_SIGMAS * MAD_TO_SIGMA * mad
    return float(far.mean())


def _drift(block: Sequence[float]) -> float:
    """The last third over the first, less 1; 0 where it is small or may be chance."""
    third = len(block) // 3
    if third < MIN_RUNS:
        return 0.0
    first, last = block[:third], block[-third:]
    change = float(np.median(last) / np.median(first)) - 1
    real = mann_whitney_p(first, last) < ALPHA
    return change if real and abs(change) > _MOST_DRIFT else 0.0


def _drift_text(drift: float) -> str:
    way = "slower" if drift > 0 else "faster"
    cure = (
        "let the machine cool, and forbid boost frequencies"
        if drift > 0
        else "it was still warming up: a larger --min-seconds"
    )
    return f"the runs became {abs(drift):.0%} {way} from the first third to the last; cure: {cure}"
