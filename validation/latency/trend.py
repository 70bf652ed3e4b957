"""A history as text: the trend of every phase, each environment by itself."""

from collections.abc import Sequence

from validation.latency.environment import Environment
from validation.latency.history import Entry, sparkline
from validation.latency.table import format_time, lay_out

_HEADER = ("variant", "phase", "runs", "first", "last", "change", "trend")
_RIGHT = (False, False, True, True, True, True, False)
_SHOWN = 40
"""The newest so many; a line must fit a terminal."""


def trend_table(entries: Sequence[Entry]) -> str:
    """Medians over time; runs of different environments or bundles' names are never in one line."""
    if not entries:
        return "the history holds no runs yet"
    groups: list[tuple[Environment, str, list[Entry]]] = []
    for entry in entries:
        for environment, bundle, members in groups:
            if (environment, bundle) == (entry.environment, entry.bundle):
                members.append(entry)
                break
        else:
            groups.append((entry.environment, entry.bundle, [entry]))
    return "\n\n".join(_group(*group) for group in groups)


def _group(environment: Environment, bundle: str, entries: list[Entry]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    head = (
        f"{bundle}: {environment.processor}, {environment.threads} threads, {versions}; "
        f"{entries[0].started_at} to {entries[-1].started_at}"
    )
    series: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        for point in entry.points:
            series.setdefault((point.key, point.phase), []).append(point.p50_s)
    rows = [_HEADER, *(_row(*where, medians) for where, medians in series.items())]
    return f"{head}\n{lay_out(rows, _RIGHT)}"


def _row(key: str, phase: str, medians: list[float]) -> tuple[str, ...]:
    first, last = medians[0], medians[-1]
    return (
        key,
        phase,
        str(len(medians)),
        format_time(first),
        format_time(last),
        f"{last / first - 1:+.1%}",
        sparkline(tuple(medians[-_SHOWN:])),
    )
