"""Gathers one value per golden case into one measurement per metric."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from validation.measurement import METRICS, Measurement, badness


@dataclass(frozen=True, kw_only=True)
class _Entry:
    value: float
    case: str
    route: str
    weight: int


@dataclass(kw_only=True)
class Tally:
    """The measurements of one component, collected case by case.

    A metric is the worst of its cases, or for pooled metrics (see `Metric.pooled`) the mean
    weighted by positions. One computation may be reached by several routes (a decoder in one pass,
    through its cache, in a padded batch): pooling stays inside a route and the worst route counts,
    so that a broken route is not diluted by those that work.
    """

    target: str
    variant: str
    component: str
    executor: str
    executed_by_core_ml: bool = False
    _values: dict[str, list[_Entry]] = field(default_factory=dict)
    _details: dict[str, str] = field(default_factory=dict)
    _problems: list[tuple[str, str]] = field(default_factory=list)
    _num_checked: int = 0

    def structure(self, problems: Iterable[str], *, case: str) -> bool:
        """Notes the structural problems of one case; true when there are none."""
        found = [(case, problem) for problem in problems]
        self._problems.extend(found)
        self._num_checked += 1
        return not found

    def add(
        self, metric: str, value: float, *, case: str, route: str = "", weight: int = 1
    ) -> None:
        """Notes one value.

        Args:
            metric: a name in `METRICS`.
            value: may be NaN or infinite.
            case: id of the golden case.
            route: how the component was run, part of the worst case's id.
            weight: positions behind the value, for pooled metrics.
        """
        entry = _Entry(value=value, case=case, route=route, weight=weight)
        self._values.setdefault(metric, []).append(entry)

    def detail(self, metric: str, text: str) -> None:
        """Notes what belongs beside a metric, such as the tolerance it was measured at."""
        self._details[metric] = text

    def measurements(self) -> tuple[Measurement, ...]:
        """The structural measurement, when anything was checked, then every metric in order."""
        known = [metric for metric in METRICS if metric in self._values]
        first = (self._structure(),) if self._num_checked else ()
        return (*first, *(self._measurement(metric) for metric in known))

    def not_run(self, metrics: Iterable[str], reason: str) -> tuple[Measurement, ...]:
        """Measurements that say why there is no number."""
        return tuple(
            self._make(metric, value=None, not_run_reason=reason, num_cases=0) for metric in metrics
        )

    def _structure(self) -> Measurement:
        # The first few say what is wrong; a thousand lines of the same would hide it.
        shown = [f"{case}: {problem}" for case, problem in self._problems[:3]]
        if hidden := len(self._problems) - len(shown):
            shown.append(f"and {hidden} more")
        return self._make(
            "structure",
            value=0.0 if self._problems else 1.0,
            worst=self._problems[0][0] if self._problems else "",
            num_cases=self._num_checked,
            detail="; ".join(shown),
        )

    def _measurement(self, metric: str) -> Measurement:
        entries = self._values[metric]
        worst = max(entries, key=lambda entry: badness(metric, entry.value))
        value = worst.value
        if METRICS[metric].pooled:
            routes = {entry.route for entry in entries}
            means = {
                route: _mean([entry for entry in entries if entry.route == route])
                for route in sorted(routes)
            }
            worst_route = max(means, key=lambda route: badness(metric, means[route]))
            value = means[worst_route]
            of_route = [entry for entry in entries if entry.route == worst_route]
            worst = max(of_route, key=lambda entry: badness(metric, entry.value))
        return self._make(
            metric,
            value=value,
            worst=f"{worst.case} ({worst.route})" if worst.route else worst.case,
            num_cases=len(entries),
            detail=self._details.get(metric, ""),
        )

    def _make(
        self,
        metric: str,
        *,
        value: float | None,
        worst: str = "",
        num_cases: int,
        detail: str = "",
        not_run_reason: str = "",
    ) -> Measurement:
        return Measurement(
            target=self.target,
            variant=self.variant,
            component=self.component,
            metric=metric,
            value=value,
            executor=self.executor if value is not None else "",
            executed_by_core_ml=self.executed_by_core_ml and value is not None,
            worst=worst,
            num_cases=num_cases,
            detail=detail,
            not_run_reason=not_run_reason,
        )


def _mean(entries: list[_Entry]) -> float:
    total = sum(entry.value * entry.weight for entry in entries)
    return total / sum(entry.weight for entry in entries)
