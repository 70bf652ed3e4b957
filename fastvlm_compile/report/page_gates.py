"""The gates on the page: what failed first, then all of them by variant, with a filter."""

from collections.abc import Iterable, Sequence

from fastvlm_compile.report.html import Column, Markup, Row, folded, join, table, tag
from fastvlm_compile.report.page_data import ReportData
from validation.gate_table import format_number, summary
from validation.gates import GateRow

_COLUMNS = (
    Column(title="component"),
    Column(title="metric", short=True),
    Column(title="status", short=True),
    Column(title="value", number=True),
    Column(title="threshold", number=True),
    Column(title="margin", number=True),
    Column(title="why this threshold, and what was found", long=True),
    Column(title="worst case"),
    Column(title="executor"),
)
_STATUSES = {"passed": "✓ passed", "failed": "✗ FAILED", "not run": "– not run"}


def failed_section(data: ReportData) -> Markup:
    """The gates that were missed, by how much, and which threshold would have held."""
    rows = [row for row in data.gates if row.status == "failed"]
    if not rows:
        return Markup("")
    holds = Column(title="would pass at", number=True)
    columns = (Column(title="what"), *_COLUMNS[1:6], holds, *_COLUMNS[6:])
    lines = []
    for row in rows:
        (_, *early), late = _cells(row)[:6], _cells(row)[6:]
        name = f"{row.target}.{row.variant}.{row.component}"
        cells = (name, *early, format_number(row.passes_at), *late)
        lines.append(Row(cells=cells, attributes={}))
    return table("Gates that failed", columns, [("", lines)])


def gates_section(data: ReportData) -> Markup:
    """All gates, folded by variant."""
    if not data.gates:
        return tag("p", "The recipe has no gates.")
    groups: dict[tuple[str, str], list[GateRow]] = {}
    for row in data.gates:
        groups.setdefault((row.target, row.variant), []).append(row)
    intro = (
        "A gate is a threshold over one measurement. The margin is the room left to it in the "
        "metric's own unit, negative where it is missed."
    )
    parts = [tag("p", intro), _filter(groups)]
    parts += [_group(key, rows) for key, rows in groups.items()]
    return join(parts, "\n")


def _group(key: tuple[str, str], rows: Sequence[GateRow]) -> Markup:
    target, variant = key
    name = f"{target} {variant}"
    lines = [Row(cells=_cells(row), attributes={"data_status": row.status}) for row in rows]
    return folded(
        f"{name}: {summary(rows)}",
        table(f"Gates of {name}", _COLUMNS, [("", lines)]),
        open_=any(row.status != "passed" for row in rows),
        class_="gates",
        data_target=target,
        data_variant=variant,
    )


def _cells(row: GateRow) -> tuple[str, ...]:
    sign = "≤" if row.bound == "max" else "≥"
    found = f" ({row.reason})" if row.reason else ""
    return (
        row.component,
        row.metric,
        _STATUSES[row.status],
        format_number(row.value),
        f"{sign} {format_number(row.threshold)}",
        format_number(row.margin),
        f"{row.why}{found}",
        row.worst or "-",
        row.executor or "-",
    )


def _filter(groups: Iterable[tuple[str, str]]) -> Markup:
    """Shown by the script; without one, every gate is there to be unfolded."""
    keys = list(groups)
    targets = dict.fromkeys(target for target, _ in keys)
    variants = dict.fromkeys(variant for _, variant in keys)
    return tag(
        "form",
        _choice("target", targets),
        _choice("variant", variants),
        _choice("status", _STATUSES),
        tag("button", "Unfold all", type="button", id="unfold"),
        tag("button", "Fold all", type="button", id="fold"),
        tag("p", role="status", id="filtered"),
        id="filter",
        hidden=True,
        aria_label="Filter the gates",
    )


def _choice(name: str, known: Iterable[str]) -> Markup:
    options = [tag("option", "all", value="")]
    options += [tag("option", each, value=each) for each in known]
    label = tag("label", name, for_=f"filter-{name}")
    chosen = tag("select", *options, id=f"filter-{name}", autocomplete="off")
    return tag("span", label, chosen, class_="choice")
