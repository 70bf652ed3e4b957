"""A comparison for people and for CI: a terminal table, GitHub-flavoured Markdown, JUnit, JSON."""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from validation.latency.comparison import Change, Comparison, Judged
from validation.latency.significance import ALPHA, LEVEL
from validation.latency.table import format_time, lay_out

JSON_SCHEMA = 1
_HEADER = ("variant", "phase", "base", "new", "change", "interval", "p", "verdict")
_RIGHT = (False, False, True, True, True, True, True, False)


def terminal_comparison(comparison: Comparison) -> str:
    """Aligned columns, then thresholds, then what has to be known."""
    rows = [_cells(change) for change in comparison.changes]
    lines = [lay_out((_named(comparison), *rows), _RIGHT)]
    lines += [_judged_text(each) for each in comparison.judged]
    lines += [f"note: {note}" for note in _notes(comparison)]
    return "\n".join(lines)


def markdown_comparison(comparison: Comparison) -> str:
    """A table that GitHub renders in a summary or a comment; the verdict comes first."""
    failed = comparison.failed
    verdict = "within the thresholds"
    if failed:
        verdict = f"**{len(failed)} over the threshold**"
    elif not comparison.judged:
        verdict = "no threshold was given"
    elif all(each.status == "not judged" for each in comparison.judged):
        verdict = "not judged: too few runs"
    lines = [
        f"### Latency: {_escape(comparison.new)} against {_escape(comparison.base)}",
        "",
        f"{verdict}; intervals at {LEVEL:.0%}",
        "",
        "| " + " | ".join(map(_escape, _named(comparison))) + " |",
        "|" + "|".join("--:" if right else ":--" for right in _RIGHT) + "|",
    ]
    for change in comparison.changes:
        *front, said = _cells(change)
        bold = f"**{said}**" if change.verdict in ("slower", "faster") else said
        lines.append("| " + " | ".join(map(_escape, (*front, bold))) + " |")
    extra = [_judged_text(each) for each in comparison.judged]
    extra += [f"note: {note}" for note in _notes(comparison)]
    if extra:
        lines += ["", *(f"- {_escape(line)}" for line in extra)]
    return "\n".join(lines) + "\n"


def junit_comparison(comparison: Comparison) -> str:
    """A test case for each threshold and phase; without thresholds one a phase, none failing."""
    root = ET.Element("testsuites", name="latency")
    cases = [(each.change, each) for each in comparison.judged]
    judged_or_all: Sequence[tuple[Change, Judged | None]] = cases or [
        (change, None) for change in comparison.changes
    ]
    ordered = sorted(judged_or_all, key=lambda case: case[0].key)
    for key, group in groupby(ordered, key=lambda case: case[0].key):
        members = list(group)
        statuses = Counter("" if judged is None else judged.status for _, judged in members)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=key,
            tests=str(len(members)),
            failures=str(statuses["failed"]),
            errors="0",
            skipped=str(statuses["not judged"]),
        )
        for change, judged in members:
            _add_case(suite, change, judged)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def json_comparison(comparison: Comparison) -> str:
    """Everything, times in seconds."""
    document = {
        "schema": JSON_SCHEMA,
        "base": comparison.base,
        "new": comparison.new,
        "interleaved": comparison.interleaved,
        "alpha": ALPHA,
        "interval_level": LEVEL,
        "environment_differences": list(comparison.environment_differences),
        "changes": [_plain(change) for change in comparison.changes],
        "thresholds": [
            {"threshold": each.threshold.text, "status": each.status, **_plain(each.change)}
            for each in comparison.judged
        ],
        "notes": list(comparison.notes),
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _add_case(suite: ET.Element, change: Change, judged: Judged | None) -> None:
    name = change.phase if judged is None else f"{change.phase} ({judged.threshold.text})"
    case = ET.SubElement(
        suite, "testcase", classname=f"latency.{change.key}", name=name, time=f"{change.new_s:.9f}"
    )
    words = " ".join(_cells(change)[2:])
    if judged is not None and judged.failed:
        ET.SubElement(case, "failure", message=_judged_text(judged)).text = words
    elif judged is not None and judged.status == "not judged":
        ET.SubElement(case, "skipped", message=_judged_text(judged)).text = words
    else:
        ET.SubElement(case, "system-out").text = words


def _cells(change: Change) -> tuple[str, ...]:
    low, high = change.interval.low - 1, change.interval.high - 1
    return (
        change.key,
        change.phase,
        format_time(change.base_s),
        format_time(change.new_s),
        f"{change.ratio - 1:+.1%}",
        f"{low:+.1%} .. {high:+.1%}",
        "<0.0001" if change.p < 1e-4 else f"{change.p:.4f}",
        change.verdict,
    )


def _named(comparison: Comparison) -> tuple[str, ...]:
    names = {"base": comparison.base, "new": comparison.new}
    return tuple(names.get(column, column) for column in _HEADER)


def _judged_text(judged: Judged) -> str:
    change = judged.change
    return (
        f"{judged.status}: {judged.threshold.text}: {change.key} {change.phase} {change.quantile} "
        f"{format_time(change.base_s)} -> {format_time(change.new_s)} "
        f"({change.ratio - 1:+.1%}, {change.verdict})"
    )


def _notes(comparison: Comparison) -> list[str]:
    different = [f"DIFFERENT ENVIRONMENTS: {each}" for each in comparison.environment_differences]
    return [*different, *comparison.notes]


def _plain(change: Change) -> dict[str, object]:
    return {
        "variant": change.key,
        "phase": change.phase,
        "quantile": change.quantile,
        "base_s": change.base_s,
        "new_s": change.new_s,
        "ratio": change.ratio,
        "ratio_low": change.interval.low,
        "ratio_high": change.interval.high,
        "p": change.p,
        "verdict": change.verdict,
    }


def _escape(text: str) -> str:
    """What would end a cell or begin markup."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
