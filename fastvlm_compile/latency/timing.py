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
    counted: Callable[[int], None],
) -> tuple[float, ...]:
    """Seconds of each counted run.

    Warm-up: `WARM_UP_RUNS`, fewer where they take longer than `min_seconds` together. Then runs
    until both limits are met, or `MOST_RUNS`.

    Args:
        run: what is timed.
        min_seconds: that the counted runs take together.
        min_runs: at least 1.
        counted: told between two runs how many are done.
    """
    _warm_up(run, min_seconds)
    samples: list[float] = []
    spent = 0.0
    while len(samples) < min_runs or (spent < min_seconds and len(samples) < MOST_RUNS):
        samples.append(elapsed(run))
        spent += samples[-1]
        counted(len(samples))
    return tuple(samples)


def elapsed(run: Callable[[], object]) -> float:
    """Seconds of one run, above 0; to let go of what it returns is no part of it."""
    started = time.perf_counter_ns()
    made = run()
    seconds = kept((time.perf_counter_ns() - started) / 1e9)
    del made
    return seconds


def kept(seconds: float) -> float:
    """A sample as it is stored."""
    return max(1e-9, round(seconds, _NANOSECONDS))


def _warm_up(run: Callable[[], object], min_seconds: float) -> None:
    ends = time.perf_counter() + min_seconds
    for _ in range(WARM_UP_RUNS):
        run()
        if time.perf_counter() > ends:
            return
