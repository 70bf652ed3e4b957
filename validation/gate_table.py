"""Verdicts as a compact table, for the terminal and for Markdown."""

from collections.abc import Sequence

from validation.gates import GateRow

NOT_CORE_ML = "ML Program parity, not executed by Core ML"
_HEADERS = ("status", "what", "metric", "value", "threshold", "margin", "worst case", "executor")


def format_number(value: float | None) -> str:
    """Four significant digits; whole numbers without a point; `-` for nothing."""
    if value is None:
        return "-"
    if value == int(value) if abs(value) < 1e6 else False:  # false for NaN and infinities
        return str(int(value))
    return f"{value:.4g}"


def terminal_table(rows: Sequence[GateRow]) -> str:
    """Aligned columns, and under each row that did not pass what is to be known about it."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in (_HEADERS, *cells)) for i in range(len(_HEADERS))]
    lines = [_aligned(_HEADERS, widths)]
    for row, line in zip(rows, cells, strict=True):
        lines.append(_aligned(line, widths))
        lines.extend(f"        {note}" for note in _notes(row))
    lines.extend(executor_notes(rows))
    lines.append(summary(rows))
    return "\n".join(lines)


def markdown_table(rows: Sequence[GateRow]) -> str:
    """A GitHub-flavoured table with the reasons in a last column."""
    lines = [
        "| " + " | ".join((*_HEADERS, "why / reason")) + " |",
        "|" + "---|" * (len(_HEADERS) + 1),
    ]
    for row in rows:
        notes = _notes(row) if row.status != "passed" else (row.why,)
        cells = (*_cells(row), "; ".join(notes))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    said = (f"\n{note}" for note in executor_notes(rows))
    return "\n".join((*lines, *said, "", summary(rows), ""))


def executor_notes(rows: Sequence[GateRow]) -> tuple[str, ...]:
    """What must be said of numbers of Core ML packages that did not come from Core ML."""
    variants = dict.fromkeys(
        f"{row.target}.{row.variant}"
        for row in rows
        if row.target == "coreml"
        and row.status != "not run"
        and row.metric != "structure"
        and row.executor
        and not row.executed_by_core_ml
    )
    return (f"{', '.join(variants)}: {NOT_CORE_ML}",) if variants else ()


def summary(rows: Sequence[GateRow]) -> str:
    """`12 passed, 1 failed, 4 not run`."""
    statuses = [row.status for row in rows]
    parts = [f"{statuses.count('passed')} passed", f"{statuses.count('failed')} failed"]
    if not_run := statuses.count("not run"):
        parts.append(f"{not_run} not run")
    return ", ".join(parts)


def _cells(row: GateRow) -> tuple[str, ...]:
    sign = "<=" if row.bound == "max" else ">="
    return (
        row.status.upper() if row.status == "failed" else row.status,
        f"{row.target}.{row.variant}.{row.component}",
        row.metric,
        format_number(row.value),
        f"{sign} {format_number(row.threshold)}",
        format_number(row.margin),
        row.worst or "-",
        row.executor or "-",
    )


def _notes(row: GateRow) -> tuple[str, ...]:
    if row.status == "passed":
        return ()
    notes = [row.reason] if row.reason else []
    if row.status == "failed":
        if row.passes_at is not None and row.metric != "structure":
            notes.append(f"would pass with {row.bound}: {format_number(row.passes_at)}")
        notes.append(f"why this threshold: {row.why}")
    return tuple(notes)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(columns).rstrip()
