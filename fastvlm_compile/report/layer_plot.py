"""How the error of each quantization grows from layer to layer: a curve for each of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fastvlm_compile.report.axes import Axis, loss_axis
from fastvlm_compile.report.plot_style import drawing, series
from fastvlm_compile.report.svg import element, spell, text
from validation.gate_table import format_number

FLOOR = 1e-6
"""Errors below are rounding of float32; they are drawn as being there."""

_WIDTH, _LEFT, _RIGHT = 900.0, 76.0, 722.0
_TOP, _BOTTOM = 34.0, 314.0
_LABEL_LEFT, _LABEL_HEIGHT = 744.0, 16.0
_RADIUS, _MOST_TICKS = 2.6, 13


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: a quantization and its error at every place, NaN where it is not a number."""

    label: str
    errors: tuple[float, ...]
    index: int
    """Of its colour and dashes, the same in every plot of a page."""

    @property
    def is_drawn(self) -> bool:
        """Whether there is an error that can be drawn."""
        return any(FLOOR < error < math.inf for error in self.errors)


def layer_plot(title: str, places: Sequence[str], curves: Sequence[Series], *, ids: str) -> str:
    """An SVG.

    Args:
        title: what it shows.
        places: names of the layers, at least one.
        curves: at least one, each of them `is_drawn`, with an error for each place.
        ids: what the ids in it begin with.
    """
    finite = [error for curve in curves for error in curve.errors if math.isfinite(error)]
    least = min(error for error in finite if error > FLOOR)
    floor = 10.0 ** math.floor(math.log10(least))
    y = loss_axis(finite, floor=floor, start=_BOTTOM, end=_TOP)
    said = " ".join(_sentence(curve, places) for curve in curves)
    columns = [_column(index, len(places)) for index in range(len(places))]
    return drawing(
        *_frame(title, places, columns, y),
        *(part for curve in curves for part in _curve(curve, places, columns, y)),
        *_labels(curves, columns, y),
        title=title,
        description=f"Line plot; low is better. {said}",
        ids=ids,
        size=(_WIDTH, _BOTTOM + 58),
        num_series=1 + max(curve.index for curve in curves),
    )


def _sentence(curve: Series, places: Sequence[str]) -> str:
    first, last = format_number(curve.errors[0]), format_number(curve.errors[-1])
    worst = max(range(len(places)), key=lambda i: _worse(curve.errors[i]))
    return (
        f"{curve.label}: {first} behind {places[0]}, {last} behind {places[-1]}, "
        f"at most {format_number(curve.errors[worst])}, behind {places[worst]}."
    )


def _worse(error: float) -> float:
    return math.inf if math.isnan(error) else error


def _column(index: int, count: int) -> float:
    """Pixels; a single place stands in the middle."""
    share = 0.5 if count == 1 else index / (count - 1)
    return _LEFT + 12.0 + share * (_RIGHT - _LEFT - 24.0)


def _frame(title: str, places: Sequence[str], columns: Sequence[float], y: Axis) -> Iterator[str]:
    yield _text(_LEFT, _TOP - 14.0, f"{title}, relative L2, log scale", "ink")
    for value, written in y.ticks:
        under = "≤ " if value == y.low else ""
        yield element("line", class_="line grid", x1=_LEFT, y1=y(value), x2=_RIGHT, y2=y(value))
        yield _text(_LEFT - 8.0, y(value) + 4.0, f"{under}{written}", "end faint")
    yield element("line", class_="line axis", x1=_LEFT, y1=_BOTTOM, x2=_RIGHT, y2=_BOTTOM)
    every = math.ceil(len(places) / _MOST_TICKS)
    shortened = every > 1 or len(places) > _MOST_TICKS // 2
    for index in range(0, len(places), every):
        word = places[index].rpartition(" ")[2] if shortened else places[index]
        yield _text(columns[index], _BOTTOM + 18.0, word, "middle faint")
    yield _text((_LEFT + _RIGHT) / 2, _BOTTOM + 42.0, "behind which layer", "middle faint")


def _curve(
    curve: Series, places: Sequence[str], columns: Sequence[float], y: Axis
) -> Iterator[str]:
    """Stretches of line between places that both have a number, and a mark at each of these."""
    points = [
        (x, y(error)) if math.isfinite(error) else None
        for x, error in zip(columns, curve.errors, strict=True)
    ]
    class_ = series(curve.index)
    path = "".join(
        f"M{spell(a[0])} {spell(a[1])}L{spell(b[0])} {spell(b[1])}"
        for a, b in pairwise(points)
        if a is not None and b is not None
    )
    if path:
        yield element("path", class_=f"curve {class_}", d=path)
    for place, error, point in zip(places, curve.errors, points, strict=True):
        if point is not None:
            title = element("title", text(f"{curve.label}, {place}: {format_number(error)}"))
            yield element("circle", title, class_=class_, cx=point[0], cy=point[1], r=_RADIUS)


def _labels(curves: Sequence[Series], columns: Sequence[float], y: Axis) -> Iterator[str]:
    """Beside the ends of the curves, moved apart where these meet."""
    ends = []
    for curve in curves:
        last = max(i for i, error in enumerate(curve.errors) if math.isfinite(error))
        ends.append((y(curve.errors[last]), columns[last], curve))
    ends.sort(key=lambda end: end[0])
    for place, (height, x, curve) in zip(_apart([end[0] for end in ends]), ends, strict=True):
        class_ = series(curve.index)
        yield element("line", class_=f"leader {class_}", x1=x, y1=height, x2=_LABEL_LEFT, y2=place)
        yield _text(_LABEL_LEFT + 4.0, place + 4.0, curve.label, class_)


def _apart(heights: Sequence[float]) -> list[float]:
    """Places in the same order, a label's height between two, as low as the frame allows."""
    lowest = [_BOTTOM - _LABEL_HEIGHT * left for left in range(len(heights))][::-1]
    places: list[float] = []
    for height, limit in zip(heights, lowest, strict=True):
        wanted = min(height, limit)
        places.append(max(wanted, places[-1] + _LABEL_HEIGHT) if places else wanted)
    return places


def _text(x: float, y: float, content: str, class_: str) -> str:
    return element("text", text(content), class_=class_, x=x, y=y)
