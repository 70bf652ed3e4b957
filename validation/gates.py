"""Thresholds over measurements: passed, failed, or not run with the reason.

Free of numpy, so that recipes can be checked without loading it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Literal

from reference.errors import UserError
from validation.measurement import METRICS, Measurement

Status = Literal["passed", "failed", "not run"]
_Key = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One threshold of a recipe. Exactly one of `max` and `min` is given.

    Attributes:
        target, variant, component, metric: the measurement that it judges.
        max: the value must not be above.
        min: the value must not be below.
        why: the reason for this number, shown in every report.
        weights: "trained" for a number that random weights cannot be held to: from layer to layer
            they amplify what a quantization changes, until nothing is left to compare.

    Raises:
        UserError: an unknown metric, no or two thresholds, or the wrong kind for the metric.
    """

    target: str
    variant: str
    component: str
    metric: str
    why: str
    max: float | None = None
    min: float | None = None
    weights: Literal["any", "trained"] = "any"

    def __post_init__(self) -> None:
        if problem := gate_problem(metric=self.metric, maximum=self.max, minimum=self.min):
            raise UserError(f"gate {self.target}.{self.variant}.{self.component}: {problem}")

    @property
    def bound(self) -> Literal["max", "min"]:
        """Which side the threshold is on."""
        return "min" if self.max is None else "max"

    @property
    def threshold(self) -> float:
        """The threshold itself."""
        value = self.min if self.max is None else self.max
        assert value is not None  # held by __post_init__
        return value


def gate_problem(*, metric: str, maximum: float | None, minimum: float | None) -> str:
    """Why this is not a usable gate, or an empty string."""
    if metric not in METRICS:
        return f"unknown metric {metric!r}; known: {', '.join(METRICS)}"
    if (maximum is None) == (minimum is None):
        return f"{metric} needs exactly one of max and min"
    if math.isnan(minimum or 0.0) or math.isnan(maximum or 0.0):
        return f"{metric}: a threshold must be a number"
    return _wrong_side(metric, maximum=maximum)


def _wrong_side(metric: str, *, maximum: float | None) -> str:
    if metric == "first_difference":
        # "No difference at all" is -1; "not before the eighth token" is min: 8.
        usable = maximum is None or maximum == -1
        return "" if usable else f"{metric} takes `max: -1` (none) or `min: N` (not before N)"
    better = METRICS[metric].better
    given, wanted = ("min" if maximum is None else "max"), ("max" if better == "lower" else "min")
    return "" if given == wanted else f"{metric} is better when {better}: use {wanted}, not {given}"


@dataclass(frozen=True, kw_only=True)
class GateRow:
    """The verdict on one gate.

    Attributes:
        status: "passed", "failed" or "not run".
        bound, threshold: what was asked.
        value: what was measured, None when nothing was.
        margin: room left to the threshold in the metric's unit, negative when it is missed.
        passes_at: the tightest threshold that would have passed, rounded outward to three digits
            so that it can be copied into a recipe; None when no number would have passed.
        worst: id of the worst golden case.
        reason: why it was not run or what was found; empty when the numbers say it all.
    """

    target: str
    variant: str
    component: str
    metric: str
    status: Status
    bound: Literal["max", "min"]
    threshold: float
    value: float | None = None
    margin: float | None = None
    passes_at: float | None = None
    worst: str = ""
    executor: str = ""
    executed_by_core_ml: bool = False
    why: str = ""
    reason: str = ""


def judge(
    measurements: Iterable[Measurement], gates: Sequence[Gate], *, random_weights: bool = False
) -> tuple[GateRow, ...]:
    """Judges every structural measurement, then every gate, in the order given.

    Names, shapes, dtypes and finiteness are never optional: each structural measurement gives a
    row whether or not a gate asks for it. A gate without a measurement has failed.

    Args:
        measurements: each once.
        gates: see `Gate`.
        random_weights: whether the checkpoint was never trained.

    Raises:
        UserError: two gates judge the same metric from the same side.
    """
    table: dict[_Key, Measurement] = {}
    for m in measurements:
        key = (m.target, m.variant, m.component, m.metric)
        if key in table:
            raise ValueError(f"measured twice: {'.'.join(key)}")
        table[key] = m
    _refuse_duplicates(gates)
    structural = tuple(
        Gate(
            target=m.target,
            variant=m.variant,
            component=m.component,
            metric="structure",
            min=1.0,
            why="names, shapes, dtypes and finiteness come before any number",
        )
        for m in table.values()
        if m.metric == "structure"
    )
    judged_anyway = {_key(gate) for gate in structural}
    asked = tuple(gate for gate in gates if _key(gate) not in judged_anyway)
    rows = ((gate, _judge_one(gate, table)) for gate in (*structural, *asked))
    return tuple(
        _spared(row) if random_weights and gate.weights == "trained" else row for gate, row in rows
    )


def all_passed(rows: Iterable[GateRow]) -> bool:
    """No row failed, and at least one was judged. A row that was not run does not count as failed:
    its reason stays in the report.
    """
    statuses = [row.status for row in rows]
    return "passed" in statuses and "failed" not in statuses


def _key(gate: Gate) -> _Key:
    return gate.target, gate.variant, gate.component, gate.metric


def _refuse_duplicates(gates: Sequence[Gate]) -> None:
    seen = set()
    for gate in gates:
        key = (*_key(gate), gate.bound, gate.weights)
        if key in seen:
            raise UserError(
                f"gate {'.'.join(_key(gate))} is given twice with `{gate.bound}`",
                hint="keep one of the two thresholds",
            )
        seen.add(key)


def _judge_one(gate: Gate, table: Mapping[_Key, Measurement]) -> GateRow:
    measurement = table.get(_key(gate))
    if measurement is None:
        structure = table.get((*_key(gate)[:3], "structure"))
        if structure is not None and structure.value != 1.0:
            why_not = structure.detail or structure.not_run_reason
            return _row(gate, structure, status="failed", reason=f"not comparable: {why_not}")
        return _row(gate, None, status="failed", reason="nothing measured")
    if measurement.value is None:
        return _row(gate, measurement, status="not run", reason=measurement.not_run_reason)
    value = measurement.value
    margin = gate.threshold - value if gate.bound == "max" else value - gate.threshold
    if math.isinf(value) and value == gate.threshold:
        margin = 0.0  # inf - inf is no number
    row = _row(
        gate,
        measurement,
        status="passed" if _holds(gate, value) else "failed",
        reason=measurement.detail,
    )
    return replace(row, value=value, margin=margin, passes_at=passing_threshold(gate.bound, value))


def _spared(row: GateRow) -> GateRow:
    """A row about trained weights where they are random; one without a value stays as it is."""
    if row.value is None:
        return row
    reason = f"it is for trained weights; these are random, and give {row.value:.4g}"
    return replace(row, status="not run", value=None, margin=None, passes_at=None, reason=reason)


def _holds(gate: Gate, value: float) -> bool:
    if gate.bound == "max":
        return value <= gate.threshold  # false for NaN
    if gate.metric == "first_difference" and value == -1:
        return True  # no difference is later than any index
    return value >= gate.threshold


def passing_threshold(bound: Literal["max", "min"], value: float) -> float | None:
    """The tightest threshold that `value` passes, rounded outward to three significant digits.

    None for NaN, which passes nothing.
    """
    if math.isnan(value):
        return None
    if value == 0.0 or math.isinf(value):
        return value
    rounding = ROUND_CEILING if bound == "max" else ROUND_FLOOR
    exact = Decimal(value)
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), rounding=rounding))


def _row(gate: Gate, measurement: Measurement | None, *, status: Status, reason: str) -> GateRow:
    return GateRow(
        target=gate.target,
        variant=gate.variant,
        component=gate.component,
        metric=gate.metric,
        status=status,
        bound=gate.bound,
        threshold=gate.threshold,
        worst=measurement.worst if measurement else "",
        executor=measurement.executor if measurement else "",
        executed_by_core_ml=measurement.executed_by_core_ml if measurement else False,
        why=gate.why,
        reason=reason,
    )
