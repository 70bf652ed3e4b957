"""`variants.svg`: bytes of every variant against what they buy.

Every number that the plot gives (in the titles of its marks and in its description) is one of the
measurements in `parity.json`; all else is scale. The loss is the end-to-end KL, since the bytes are
of the whole model: the decoder's alone would not show what a smaller tower costs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap

from fastvlm_compile.report.axes import Axis, bytes_axis, loss_axis, share_axis
from fastvlm_compile.report.labels import Box, Label, Line, Mark, place_labels
from fastvlm_compile.report.plot_style import NAMES, drawing, mark
from fastvlm_compile.report.svg import element, spell, text
from fastvlm_compile.report.variants import VariantQuality, pareto_front
from fastvlm_compile.report.variants_table import not_core_ml
from validation.gate_table import NOT_CORE_ML, format_number

FLOOR = 1e-7
"""Nats; what is below is float32 rounding and is drawn on the lowest line."""

_WIDTH, _LEFT, _RIGHT = 900.0, 76.0, 880.0
_TOP = 122.0
_LOSS_HEIGHT, _TASK_HEIGHT = 380.0, 150.0
_BETWEEN = 62.0
_RADIUS = 4.8
_FONT_SIZE = 12.0
_LINE = 18.0
_NOTE_WIDTH = 105  # characters


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A variant that can be drawn."""

    row: VariantQuality
    size_bytes: float
    loss: float

    @property
    def title(self) -> str:
        """All numbers, for those who point at it and those who listen."""
        parts = [f"{self.size_bytes:.0f} bytes", f"KL {format_number(self.loss)} nats"]
        if self.row.task_accuracy.value is not None:
            parts.append(f"task accuracy {format_number(self.row.task_accuracy.value)}")
        return f"{NAMES[self.row.target]} {self.row.variant}: {', '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """A frame with two axes and one mark a variant."""

    x: Axis
    y: Axis
    heading: str
    values: tuple[tuple[_Point, float], ...]
    """Variants and where they stand on `y`."""
    fronts: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = ()
    """Targets and their fronts, in values."""


def variants_plot(name: str, rows: Sequence[VariantQuality], *, ids: str = "") -> str:
    """A whole SVG document; equal arguments, equal text.

    Args:
        name: of the recipe.
        ids: what the ids in it begin with, where it stands in a page with others.
        rows: of `variant_rows`; the quantized references have no bytes and are left out.
    """
    rows = [row for row in rows if row.has_files]
    points = [point for row in rows if (point := _point(row)) is not None]
    missing = [f"{row.target} {row.variant}: {_why_not(row)}" for row in rows if not _point(row)]
    panels = list(_panels(points)) if points else []
    bottom = panels[-1].y.start if panels else _TOP - 2 * _LINE
    notes = [line for each in missing for line in wrap(f"Not drawn: {each}", _NOTE_WIDTH)]
    if not panels:
        notes.insert(0, "Nothing was measured that could be drawn.")
    first_note = bottom + (62.0 if panels else 0.0)
    height = first_note + _LINE * len(notes)
    body = [part for panel in panels for part in _draw(panel)]
    if panels:
        body.append(_under((_LEFT + _RIGHT) / 2, bottom + 42, "bytes of all files, log scale"))
    body += [_text(_LEFT, first_note + _LINE * n, note) for n, note in enumerate(notes)]
    return drawing(
        *_head(name, points),
        *body,
        title=f"{name}: bytes of each variant against its quality",
        description=_description(points, missing),
        ids=ids,
        size=(_WIDTH, height),
        standalone=True,
    )


def _point(row: VariantQuality) -> _Point | None:
    size, loss = row.size_bytes.value, row.kl_end_to_end.value
    if size is None or loss is None or not size > 0 or not 0 <= loss < math.inf:
        return None
    return _Point(row=row, size_bytes=size, loss=loss)


def _why_not(row: VariantQuality) -> str:
    if row.size_bytes.value is None:
        return "its bytes are not known"
    cell = row.kl_end_to_end
    if cell.value is None:
        return f"KL not run ({cell.reason})" if cell.reason else "no end-to-end KL"
    return f"KL {format_number(cell.value)}"


def _description(points: Sequence[_Point], missing: Sequence[str]) -> str:
    said = [
        "Scatter plot. Horizontal: bytes. Vertical: mean KL divergence from the float32 reference, "
        "end to end; lower is better.",
        *(f"{point.title}." for point in points),
        *(f"Not drawn: {each}." for each in missing),
    ]
    return " ".join(said)


def _panels(points: Sequence[_Point]) -> Iterator[_Panel]:
    x = bytes_axis([point.size_bytes for point in points], start=_LEFT, end=_RIGHT)
    bottom = _TOP + _LOSS_HEIGHT
    losses = [max(point.loss, FLOOR) for point in points]
    targets = [name for name in NAMES if any(point.row.target == name for point in points)]
    yield _Panel(
        x=x,
        y=loss_axis(losses, floor=FLOOR, start=bottom, end=_TOP),
        heading="KL from pixels to tokens, nats, log scale: lower is better",
        values=tuple(zip(points, losses, strict=True)),
        fronts=tuple(
            (
                target,
                pareto_front(
                    (point.size_bytes, loss)
                    for point, loss in zip(points, losses, strict=True)
                    if point.row.target == target
                ),
            )
            for target in targets
        ),
    )
    shares = [(point, value) for point in points if (value := _accuracy(point)) is not None]
    if shares:
        top = bottom + _BETWEEN
        yield _Panel(
            x=x,
            y=share_axis([value for _, value in shares], start=top + _TASK_HEIGHT, end=top),
            heading="Task accuracy, where questions were asked: higher is better",
            values=tuple(shares),
        )


def _accuracy(point: _Point) -> float | None:
    value = point.row.task_accuracy.value
    return value if value is not None and 0 <= value <= 1 else None  # NaN is no share


def _head(name: str, points: Sequence[_Point]) -> Iterator[str]:
    yield _text(_LEFT, 32.0, f"{name}: bytes against quality", "title ink")
    yield _text(
        _LEFT, 53.0, "Thin lines: nothing of the same target is smaller and better at once."
    )
    x = _LEFT
    for target, plain in NAMES.items():
        of_target = [point.row for point in points if point.row.target == target]
        if not of_target:
            continue
        foreign = any(not_core_ml(row) for row in of_target)
        called = f"{plain} ({NOT_CORE_ML})" if foreign else plain
        yield mark(target, x + _RADIUS, 74.0, _RADIUS)
        yield _text(x + 18.0, 78.0, called, "ink")
        x += 18.0 + 6.2 * len(called) + 24.0


def _draw(panel: _Panel) -> Iterator[str]:
    """Frame, fronts, leaders, marks and, over all of them, labels."""
    yield from _frame(panel)
    stairs = [(target, _stairs(panel, front)) for target, front in panel.fronts]
    for target, corners in stairs:
        if len(corners) > 1:
            path = "L".join(f"{spell(x)} {spell(y)}" for x, y in corners)
            yield element("path", class_=f"front {target}", d=f"M{path}")
    marks = [
        Mark(
            x=panel.x(point.size_bytes),
            y=panel.y(value),
            radius=_RADIUS,
            label=point.row.variant,
        )
        for point, value in panel.values
    ]
    inside = Box(left=_LEFT + 3, top=panel.y.end - 8, right=_WIDTH - 4, bottom=panel.y.start - 2)
    lines = [
        Line(x1=x1, y1=y1, x2=x2, y2=y2)
        for _, corners in stairs
        for (x1, y1), (x2, y2) in pairwise(corners)
    ]
    labels = place_labels(marks, inside=inside, font_size=_FONT_SIZE, lines=lines)
    targets = [point.row.target for point, _ in panel.values]
    for target, label in zip(targets, labels, strict=True):
        if label.leader is not None:
            yield _line(f"leader {target}", *_ends(label))
    for (point, _), place in zip(panel.values, marks, strict=True):
        title = element("title", text(point.title))
        yield mark(point.row.target, place.x, place.y, _RADIUS, title)
    for target, label in zip(targets, labels, strict=True):
        class_ = f"label {label.anchor} {target}"
        yield _text(label.x, label.box.bottom - 4.0, label.text, class_)


def _frame(panel: _Panel) -> Iterator[str]:
    x, y = panel.x, panel.y
    yield _text(_LEFT, y.end - 14.0, panel.heading, "ink")
    for value, written in y.ticks:
        yield _line("line grid", x.start, y(value), x.end, y(value))
        under = "≤ " if y.logarithmic and value == y.low else ""
        yield _text(_LEFT - 8.0, y(value) + 4.0, f"{under}{written}", "end faint")
    for value, written in x.ticks:
        yield _line("line grid", x(value), y.start, x(value), y.end)
        yield _under(x(value), y.start + 18.0, written)
    yield _line("line axis", x.start, y.start, x.end, y.start)


def _stairs(panel: _Panel, front: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Corners in pixels: right as long as nothing better is to be had, then down to it."""
    corners: list[tuple[float, float]] = []
    for size, loss in front:
        x, y = panel.x(size), panel.y(loss)
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return tuple(corners)


def _ends(label: Label) -> tuple[float, float, float, float]:
    assert label.leader is not None
    return label.leader.x1, label.leader.y1, label.leader.x2, label.leader.y2


def _line(class_: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return element("line", class_=class_, x1=x1, y1=y1, x2=x2, y2=y2)


def _text(x: float, y: float, content: str, class_: str = "faint") -> str:
    return element("text", text(content), class_=class_, x=x, y=y)


def _under(x: float, y: float, content: str) -> str:
    return _text(x, y, content, "middle faint")
