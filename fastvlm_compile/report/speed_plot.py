"""Tokens per second of every variant against what they cost in quality."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastvlm_compile.bundle.layout import timed_as
from fastvlm_compile.report.axes import Axis, loss_axis, rate_axis
from fastvlm_compile.report.labels import Box, Mark, place_labels
from fastvlm_compile.report.page_data import Latency, PhaseLine
from fastvlm_compile.report.plot_style import NAMES, drawing, mark
from fastvlm_compile.report.svg import element, text
from fastvlm_compile.report.variants import VariantQuality
from fastvlm_compile.report.variants_plot import FLOOR
from validation.gate_table import format_number
from validation.latency.samples import DECODE

_WIDTH, _LEFT, _RIGHT = 900.0, 76.0, 880.0
_TOP, _BOTTOM = 122.0, 422.0
_RADIUS, _FONT_SIZE = 4.8, 12.0


@dataclass(frozen=True, kw_only=True)
class _Point:
    target: str
    label: str
    rate: float
    loss: float

    @property
    def title(self) -> str:
        rate, loss = format_number(self.rate), format_number(self.loss)
        return f"{NAMES[self.target]} {self.label}: {rate} tokens per second, KL {loss} nats"


def speed_plot(name: str, latency: Latency, rows: Sequence[VariantQuality], *, ids: str) -> str:
    """An SVG; empty where no variant has both, a rate of decoding and an end-to-end KL.

    Args:
        name: of the bundle.
        latency: of its variants.
        rows: their quality.
        ids: what the ids in it begin with.
    """
    points = tuple(_points(latency.phases, rows))
    if not points:
        return ""
    title = f"{name}: tokens per second of each variant against its quality"
    said = " ".join(f"{point.title}." for point in points)
    x = rate_axis([point.rate for point in points], start=_LEFT, end=_RIGHT)
    losses = [max(point.loss, FLOOR) for point in points]
    y = loss_axis(losses, floor=FLOOR, start=_BOTTOM, end=_TOP)
    return drawing(
        *_head(name, points),
        *_frame(x, y),
        *_marks(points, x, y),
        title=title,
        description=f"Scatter plot; right and low is better. {said}",
        ids=ids,
        size=(_WIDTH, _BOTTOM + 58),
    )


def _points(phases: Sequence[PhaseLine], rows: Sequence[VariantQuality]) -> Iterator[_Point]:
    losses = {(row.target, row.variant): row.kl_end_to_end.value for row in rows}
    for phase in phases:
        target, variant, _ = timed_as(phase.runtime, phase.variant)
        loss, rate = losses.get((target, variant)), phase.items_per_s
        if phase.phase != DECODE or rate is None or loss is None:
            continue
        if 0 <= loss < math.inf and 0 < rate < math.inf:
            yield _Point(target=target, label=phase.variant, rate=rate, loss=loss)


def _head(name: str, points: Sequence[_Point]) -> Iterator[str]:
    yield _text(_LEFT, 32.0, f"{name}: quality against speed", "title ink")
    yield _text(_LEFT, 53.0, "Decoding at the median: to the right is faster, below is better.")
    x = _LEFT
    for target, plain in NAMES.items():
        if any(point.target == target for point in points):
            yield mark(target, x + _RADIUS, 74.0, _RADIUS)
            yield _text(x + 18.0, 78.0, plain, "ink")
            x += 42.0 + 6.2 * len(plain)


def _frame(x: Axis, y: Axis) -> Iterator[str]:
    yield _text(_LEFT, _TOP - 14.0, "KL from pixels to tokens, nats, log scale", "ink")
    for value, written in y.ticks:
        under = "≤ " if value == y.low else ""
        yield element("line", class_="line grid", x1=x.start, y1=y(value), x2=x.end, y2=y(value))
        yield _text(_LEFT - 8.0, y(value) + 4.0, f"{under}{written}", "end faint")
    for value, written in x.ticks:
        yield element("line", class_="line grid", x1=x(value), y1=y.start, x2=x(value), y2=y.end)
        yield _text(x(value), _BOTTOM + 18.0, written, "middle faint")
    yield element("line", class_="line axis", x1=x.start, y1=_BOTTOM, x2=x.end, y2=_BOTTOM)
    middle = (_LEFT + _RIGHT) / 2
    yield _text(middle, _BOTTOM + 42.0, "tokens per second, log scale", "middle faint")


def _marks(points: Sequence[_Point], x: Axis, y: Axis) -> Iterator[str]:
    marks = [
        Mark(x=x(p.rate), y=y(max(p.loss, FLOOR)), radius=_RADIUS, label=p.label) for p in points
    ]
    inside = Box(left=_LEFT + 3, top=_TOP - 8, right=_WIDTH - 4, bottom=_BOTTOM - 2)
    labels = place_labels(marks, inside=inside, font_size=_FONT_SIZE)
    for point, label in zip(points, labels, strict=True):
        if (line := label.leader) is not None:
            class_ = f"leader {point.target}"
            yield element("line", class_=class_, x1=line.x1, y1=line.y1, x2=line.x2, y2=line.y2)
    for point, place in zip(points, marks, strict=True):
        yield mark(point.target, place.x, place.y, _RADIUS, element("title", text(point.title)))
    for point, label in zip(points, labels, strict=True):
        class_ = f"label {label.anchor} {point.target}"
        yield _text(label.x, label.box.bottom - 4.0, label.text, class_)


def _text(x: float, y: float, content: str, class_: str = "faint") -> str:
    return element("text", text(content), class_=class_, x=x, y=y)
