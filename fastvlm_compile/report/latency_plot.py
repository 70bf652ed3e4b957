"""How the times of one phase are spread: a line of samples for each variant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastvlm_compile.report.axes import Axis, time_axis
from fastvlm_compile.report.plot_style import drawing
from fastvlm_compile.report.svg import element, spell, text
from validation.latency.summary import Summary
from validation.latency.table import format_time

MOST_TICKS = 200
"""More samples than that are thinned out evenly by rank, the ends kept: pixels are not finer."""

_WIDTH, _LEFT, _RIGHT = 900.0, 220.0, 880.0
_TOP, _ROW = 16.0, 34.0


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The samples of one variant."""

    label: str
    samples_s: tuple[float, ...]
    summary: Summary

    @property
    def sentence(self) -> str:
        """For those who do not see it."""
        s = self.summary
        return (
            f"{self.label}: {s.num_runs} runs, median {format_time(s.p50_s)}, "
            f"90 % within {format_time(s.p90_s)}, 99 % within {format_time(s.p99_s)}."
        )


def latency_plot(phase: str, spreads: Sequence[Spread], *, ids: str) -> str:
    """An SVG; at least one spread, each with samples.

    Args:
        phase: its name.
        spreads: one line each.
        ids: what the ids in it begin with.
    """
    bottom = _TOP + _ROW * len(spreads)
    height = bottom + 56.0
    ends = [end for s in spreads for end in (min(s.samples_s), max(s.samples_s))]
    x = time_axis(ends, start=_LEFT, end=_RIGHT)
    said = " ".join(spread.sentence for spread in spreads)
    rows = (part for i, s in enumerate(spreads) for part in _row(s, x, _TOP + _ROW * (i + 0.5)))
    return drawing(
        *_frame(x, bottom),
        *rows,
        title=f"{phase}: times of all runs",
        description=f"Strip plot. {said}",
        ids=ids,
        size=(_WIDTH, height),
    )


def _frame(x: Axis, bottom: float) -> Iterator[str]:
    for value, written in x.ticks:
        yield element("line", class_="line grid", x1=x(value), y1=_TOP, x2=x(value), y2=bottom)
        yield _text(x(value), bottom + 18.0, written, "middle faint")
    yield element("line", class_="line axis", x1=_LEFT, y1=bottom, x2=_RIGHT, y2=bottom)
    legend = "log scale; a stroke a run, the tall one the median, the bar up to 90 % of the runs"
    yield _text((_LEFT + _RIGHT) / 2, bottom + 40.0, legend, "middle faint")


def _row(spread: Spread, x: Axis, y: float) -> Iterator[str]:
    s = spread.summary
    yield _text(_LEFT - 10.0, y + 4.0, spread.label, "end ink")
    start, end = x(s.min_s), x(s.p90_s)
    yield element(
        "rect", class_="onnx spread", x=start, y=y - 6, width=max(end - start, 1.0), height=12.0
    )
    strokes = "".join(f"M{spell(x(value))} {spell(y - 5)}v10" for value in _thinned(spread))
    yield element("path", class_="front onnx", d=strokes)
    title = element("title", text(spread.sentence))
    yield element("rect", title, class_="ink", x=x(s.p50_s) - 1, y=y - 11, width=2.0, height=22.0)


def _thinned(spread: Spread) -> list[float]:
    ordered = sorted(spread.samples_s)
    if len(ordered) <= MOST_TICKS:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(i * last / (MOST_TICKS - 1))] for i in range(MOST_TICKS)]


def _text(x: float, y: float, content: str, class_: str) -> str:
    return element("text", text(content), class_=class_, x=x, y=y)
