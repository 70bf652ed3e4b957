"""What the command prints."""

from collections import Counter
from collections.abc import Iterator

from validation.kill_matrix.judge import Outcome
from validation.kill_matrix.matrix import Matrix

STATUSES = ("killed", "refused", "equivalent", "survived", "crashed")


def render(matrix: Matrix) -> Iterator[str]:
    """Kinds and what noticed them, then what is equivalent and why, then the holes."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in matrix.outcomes:
        kinds.setdefault(outcome.mutation.kind, []).append(outcome)
    counts = ", ".join(f"{matrix.counts[status]} {status}" for status in STATUSES)
    yield (
        f"{matrix.precision}: {len(matrix.outcomes)} faults of {len(kinds)} kinds: {counts}"
        " (ML Program executor, not executed by Core ML)"
    )
    width = max(map(len, kinds), default=0)
    for kind, outcomes in sorted(kinds.items()):
        yield f"  {kind:<{width}}  {len(outcomes):3d}  {_noticed(outcomes)}"
    yield from _equivalent(matrix)
    yield f"holes: {len(matrix.holes) or 'none'}"
    for outcome in matrix.holes:
        yield f"  {outcome.status.upper()} {outcome.mutation.name}: {outcome.detail}"


def listed(matrix: Matrix) -> dict[str, object]:
    """Every outcome, in order."""
    return {
        "precision": matrix.precision,
        "executed_by_core_ml": False,
        "counts": {status: matrix.counts[status] for status in STATUSES},
        "faults": [
            {
                "kind": outcome.mutation.kind,
                "file": outcome.mutation.file,
                "where": outcome.mutation.where,
                "what": outcome.mutation.what,
                "status": outcome.status,
                "gate": outcome.gate,
                # JSON has no NaN; a value that is none is told as text.
                "value": outcome.value if outcome.value is None else f"{outcome.value:.6g}",
                "threshold": outcome.threshold,
                "detail": outcome.detail,
            }
            for outcome in matrix.outcomes
        ],
    }


def _noticed(outcomes: list[Outcome]) -> str:
    """`vision relative_l2 4 (at least 0.0012), refused 1`: the weakest kill of each gate."""
    parts = []
    for gate, count in Counter(outcome.gate for outcome in outcomes).most_common():
        values = [o.value for o in outcomes if o.gate == gate and o.value is not None]
        close = f" (from {min(values):.2g})" if values and gate.endswith("relative_l2") else ""
        parts.append(f"{gate} {count}{close}")
    return ", ".join(parts)


def _equivalent(matrix: Matrix) -> Iterator[str]:
    reasons = {
        outcome.mutation.kind: outcome.detail
        for outcome in matrix.outcomes
        if outcome.status == "equivalent"
    }
    if reasons:
        yield "shown equivalent:"
    for kind, detail in reasons.items():
        yield f"  {kind}: {detail}"
