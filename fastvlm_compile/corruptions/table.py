"""What the command prints."""

from collections import Counter
from collections.abc import Iterator

from fastvlm_compile.corruptions.matrix import JUDGES, Matrix, Outcome, Status

STATUSES: tuple[Status, ...] = ("caught", "equivalent", "survived", "crashed")


def render(matrix: Matrix) -> Iterator[str]:
    """A line per kind with what each judge noticed, then what is equivalent, then the holes."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in matrix.outcomes:
        kinds.setdefault(outcome.fault.kind, []).append(outcome)
    counts = Counter(outcome.status for outcome in matrix.outcomes)
    told = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    yield f"{matrix.target}: {len(matrix.outcomes)} faults of {len(kinds)} kinds: {told}"
    yield f"executor: {matrix.executor}"
    width = max(map(len, kinds), default=0)
    heads = ("faults", *JUDGES, "parity alone")
    yield f"  {'kind':<{width}}  {'  '.join(heads)}"
    for kind, outcomes in sorted(kinds.items()):
        yield f"  {kind:<{width}}  {_columns(outcomes, heads)}"
    yield f"  {'all':<{width}}  {_columns(list(matrix.outcomes), heads)}"
    yield from _listed("by identity alone", _identity_alone(matrix))
    yield from _listed(
        "equivalent, the file decodes to the same numbers",
        [outcome for outcome in matrix.outcomes if outcome.status == "equivalent"],
    )
    yield f"holes: {len(matrix.holes) or 'none'}"
    for outcome in matrix.holes:
        yield f"  {outcome.status.upper()} {_named(outcome)} {outcome.crash}".rstrip()


def listed(matrix: Matrix) -> dict[str, object]:
    """Every outcome, in order."""
    counts = Counter(outcome.status for outcome in matrix.outcomes)
    return {
        "target": matrix.target,
        "executor": matrix.executor,
        "counts": {status: counts[status] for status in STATUSES},
        "caught_by_parity_alone": sum(outcome.caught_by_parity for outcome in matrix.outcomes),
        "faults": [
            {
                "kind": outcome.fault.kind,
                "file": outcome.fault.file,
                "where": outcome.fault.where,
                "what": outcome.what,
                "status": outcome.status,
                "caught": {str(judge): said for judge, said in outcome.caught.items()},
                "crash": outcome.crash,
            }
            for outcome in matrix.outcomes
        ],
    }


def _columns(outcomes: list[Outcome], heads: tuple[str, ...]) -> str:
    by_judge = [sum(name in outcome.caught for outcome in outcomes) for name in JUDGES]
    by_parity = sum(outcome.caught_by_parity for outcome in outcomes)
    numbers = (len(outcomes), *by_judge, by_parity)
    return "  ".join(f"{number:>{len(head)}}" for number, head in zip(numbers, heads, strict=True))


def _identity_alone(matrix: Matrix) -> list[Outcome]:
    return [outcome for outcome in matrix.outcomes if outcome.caught.keys() == {"identity"}]


def _listed(title: str, outcomes: list[Outcome]) -> Iterator[str]:
    yield f"{title}: {len(outcomes) or 'none'}"
    yield from (f"  {_named(outcome)}" for outcome in outcomes)


def _named(outcome: Outcome) -> str:
    what = f" ({outcome.what})" if outcome.what else ""
    return f"{outcome.fault.name}{what}"
