"""Running something often enough, by time and by count."""

import time
from collections.abc import Callable

WARM_UP_RUNS = 3
MOST_RUNS = 2000
"""Of one phase in one process: more say nothing new, and a file of samples stays readable."""
_NANOSECONDS = 9
"""Digits that are kept; a clock tells no more."""


def time_runs(
    run: Callable[[], object],
    *,
    min_seconds: float,
    min_runs: int,
    prepare: Callable[[], None] = lambda: None,
) -> tuple[float, ...]:
    """Seconds of each counted run.

    Warm-up: `WARM_UP_RUNS`, fewer where they take longer than `min_seconds` together. Then runs
    until both limits are met, or `MOST_RUNS`.

    Args:
        run: what is timed.
        min_seconds: that the counted runs take together.
        min_runs: at least 1.
        prepare: called before each run, not timed.
    """
    _warm_up(run, prepare, min_seconds)
    samples: list[float] = []
    spent = 0.0
    while len(samples) < min_runs or (spent < min_seconds and len(samples) < MOST_RUNS):
        prepare()
        samples.append(elapsed(run))
        spent += samples[-1]
    return tuple(samples)


def elapsed(run: Callable[[], object]) -> float:
    """Seconds of one run, above 0."""
    started = time.perf_counter_ns()
    run()
    return kept((time.perf_counter_ns() - started) / 1e9)


def kept(seconds: float) -> float:
    """A sample as it is stored."""
    return max(1e-9, round(seconds, _NANOSECONDS))


def _warm_up(run: Callable[[], object], prepare: Callable[[], None], min_seconds: float) -> None:
    ends = time.perf_counter() + min_seconds
    for _ in range(WARM_UP_RUNS):
        prepare()
        run()
        if time.perf_counter() > ends:
            return
