"""Where the error of Core ML packages comes from, as Markdown: conversion, precision, and both."""

from collections.abc import Mapping, Sequence

from validation.gate_table import NOT_CORE_ML, format_number
from validation.measurement import Measurement

_METRIC = "relative_l2"
_COMPONENTS = ("vision", "projector", "decoder")
_HEAD = (
    "| package | conversion: float32 against the reference | precision: float16 against float32 "
    "| together: float16 against the reference | executor |\n|---|---|---|---|---|"
)

_Found = Mapping[tuple[str, str], Measurement]


def error_table(measurements: Sequence[Measurement]) -> str:
    """A section with one line per component; empty where nothing of Core ML was measured."""
    found = {
        (m.variant, m.component): m
        for m in measurements
        if m.target == "coreml" and m.metric == _METRIC and m.value is not None
    }
    lines = [line for name in _COMPONENTS if (line := _line(name, found))]
    if not lines:
        return ""
    table = "\n".join((_HEAD, *lines))
    return f"## Where the error of the Core ML packages comes from\n\nRelative L2.\n\n{table}\n"


def _line(component: str, found: _Found) -> str:
    parts = [
        found.get(("float32", component)),
        found.get(("float16", f"{component}_precision")),
        found.get(("float16", component)),
    ]
    measured = [part for part in parts if part is not None]
    if not measured:
        return ""
    by_core_ml = all(part.executed_by_core_ml for part in measured)
    numbers = " | ".join(format_number(part.value if part else None) for part in parts)
    return f"| {component} | {numbers} | {'Core ML' if by_core_ml else NOT_CORE_ML} |"
