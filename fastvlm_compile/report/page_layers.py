"""Errors behind every layer on the page: a plot for each half of the model, and all numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fastvlm_compile.report.html import Column, Markup, folded, join, rows_of, table, tag
from fastvlm_compile.report.layer_plot import FLOOR, Series, layer_plot
from fastvlm_compile.report.page_data import ReportData
from fastvlm_compile.report.page_sections import figure
from validation.gate_table import format_number
from validation.layer_curves import PARTS, LayerCurve, Part

_TITLES: Mapping[Part, str] = {"vision": "vision tower", "decoder": "decoder"}
_LONGEST_LABEL = 24
_INTRO = (
    "How far what a layer hands on is from what the float32 reference hands on there: PyTorch with "
    "the quantized weights, one golden case, no runtime. Both halves of the model were given the "
    "reference's own input, so the decoder's errors hold nothing of the tower's."
)


@dataclass(frozen=True, kw_only=True)
class _Half:
    """Curves over the same layers."""

    title: str
    places: tuple[str, ...]
    curves: tuple[Series, ...]


def layers_section(data: ReportData) -> Markup:
    """Empty where the build measured none."""
    if not data.layers:
        return Markup("")
    parts: list[str] = [tag("p", _INTRO), tag("p", _measured_on(data.layers))]
    for number, half in enumerate(_halves(data.layers)):
        if drawn := _without_repeats(half):
            title = f"{data.name}: error behind each layer of the {half.title}"
            parts.append(figure(layer_plot(title, half.places, drawn, ids=f"layers-{number}-")))
        parts += _remarks(half)
        parts.append(folded(f"All numbers of the {half.title}", _numbers(half)))
    return join(parts, "\n")


def _equal(half: _Half) -> list[list[Series]]:
    """Curves that lie on each other, such as those of quantizations that share a tower."""
    groups: dict[tuple[float, ...], list[Series]] = {}
    for curve in half.curves:
        if curve.is_drawn:
            groups.setdefault(curve.errors, []).append(curve)
    return list(groups.values())


def _without_repeats(half: _Half) -> list[Series]:
    """One of each, named after all of them or, where that is too long, by their number."""
    return [replace(group[0], label=_label(group)) for group in _equal(half)]


def _label(group: Sequence[Series]) -> str:
    named = _names(group)
    fits = len(group) == 1 or len(named) <= _LONGEST_LABEL
    return named if fits else f"{group[0].label} and {len(group) - 1} more"


def _names(group: Sequence[Series]) -> str:
    return ", ".join(curve.label for curve in group)


def _remarks(half: _Half) -> Iterator[Markup]:
    """What no curve shows."""
    for group in _equal(half):
        if _label(group) != _names(group):
            said = f"One curve in the {half.title}, for they are equal there: {_names(group)}."
            yield tag("p", said)
    if exact := [curve for curve in half.curves if all(e <= FLOOR for e in curve.errors)]:
        yield tag("p", f"No error but rounding in the {half.title}: {_names(exact)}.")
    for curve in half.curves:
        lost = [
            place
            for place, error in zip(half.places, curve.errors, strict=True)
            if not math.isfinite(error)
        ]
        if lost:
            said = f"{curve.label} has no finite error behind {', '.join(lost)}."
            yield tag("p", said, class_="warning")


def _measured_on(curves: Sequence[LayerCurve]) -> str:
    executors = "; ".join(dict.fromkeys(curve.executor for curve in curves))
    cases = ", ".join(dict.fromkeys(curve.case for curve in curves))
    images = ", ".join(dict.fromkeys(curve.image for curve in curves if curve.image))
    image = f", image {images}" if images else ""
    return f"Golden case {cases}{image}. Executor: {executors}."


def _halves(curves: Sequence[LayerCurve]) -> list[_Half]:
    """Tower and decoder; curves over other layers, which no two of one build are, stand apart."""
    halves: dict[tuple[Part, tuple[str, ...]], list[Series]] = {}
    for part in PARTS:
        for index, curve in enumerate(curves):
            layers = [layer for layer in curve.layers if layer.part == part]
            if layers:
                errors = tuple(layer.relative_l2 for layer in layers)
                found = Series(label=curve.variant, errors=errors, index=index)
                places = tuple(layer.name for layer in layers)
                halves.setdefault((part, places), []).append(found)
    return [
        _Half(title=_TITLES[part], places=places, curves=tuple(members))
        for (part, places), members in halves.items()
    ]


def _numbers(half: _Half) -> Markup:
    columns = [Column(title="behind", short=True)]
    columns += [Column(title=curve.label, number=True) for curve in half.curves]
    cells = [
        (place, *(format_number(curve.errors[row]) for curve in half.curves))
        for row, place in enumerate(half.places)
    ]
    return table(f"Relative L2 errors in the {half.title}", columns, [("", rows_of(cells))])
