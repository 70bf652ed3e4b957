"""Names beside the marks of a plot, none over another, over a mark or outside."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

# Wider than most letters of the usual sans-serif fonts: what is left over does no harm.
_CHARACTER_WIDTH = 0.62
_LINE_HEIGHT = 1.15
_GAP = 2.0
_NEAR = 12.0
"""A label within so many pixels needs no line to its mark."""
_LEADER, _COVERING, _CROSSING = 6.0, 8.0, 60.0
"""Pixels of distance that are as bad as such a line, a covered front, two crossing things."""
_FARTHEST = 2000.0
"""Pixels; no plot is as wide."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box", *, gap: float = 0.0) -> bool:
        """Whether they come closer than `gap`."""
        return (
            self.left < other.right + gap
            and other.left < self.right + gap
            and self.top < other.bottom + gap
            and other.top < self.bottom + gap
        )

    def holds(self, other: "Box") -> bool:
        """Whether `other` is inside."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Its point that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)

    def meets(self, line: "Line") -> bool:
        """Whether a line runs through it: some stretch lies between both pairs of its sides."""
        first, last = 0.0, 1.0
        for start, end, low, high in (
            (line.x1, line.x2, self.left, self.right),
            (line.y1, line.y2, self.top, self.bottom),
        ):
            run = end - start
            if run == 0:
                if not low < start < high:
                    return False
                continue
            enters, leaves = sorted(((low - start) / run, (high - start) / run))
            first, last = max(first, enters), min(last, leaves)
        return first < last


@dataclass(frozen=True, kw_only=True)
class Line:
    """From one point to another."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a label belongs to: its middle and its half width."""

    x: float
    y: float
    radius: float
    label: str

    @property
    def box(self) -> Box:
        """Around the mark."""
        r = self.radius
        return Box(left=self.x - r, top=self.y - r, right=self.x + r, bottom=self.y + r)


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text in its place.

    Attributes:
        text: of the mark.
        box: around it, mostly wider than the text.
        anchor: the side of the box that the text keeps to, the one that is nearest to the mark.
        leader: to the mark, where that is not right beside it.
    """

    text: str
    box: Box
    anchor: Literal["start", "middle", "end"]
    leader: Line | None

    @property
    def x(self) -> float:
        """Where the anchor is."""
        box = self.box
        return {"start": box.left, "middle": (box.left + box.right) / 2, "end": box.right}[
            self.anchor
        ]


def place_labels(
    marks: Sequence[Mark], *, inside: Box, font_size: float, lines: Sequence[Line] = ()
) -> tuple[Label, ...]:
    """One label a mark, as near to it as the others allow; equal arguments, equal places.

    Args:
        marks: any number, also several in one place.
        inside: where labels may stand.
        font_size: in pixels.
        lines: that labels had better not cover.
    """
    crowd = _Crowd(marks=marks, lines=lines, placed=[])
    found: dict[int, Label] = {}
    for index in sorted(range(len(marks)), key=lambda i: (marks[i].x, marks[i].y, marks[i].label)):
        found[index] = _place(marks[index], crowd, inside, font_size)
        crowd.placed.append(found[index])
    return tuple(found[index] for index in range(len(marks)))


def text_width(content: str, font_size: float) -> float:
    """An upper bound for most fonts, pixels."""
    return _CHARACTER_WIDTH * font_size * len(content)


@dataclass(frozen=True, kw_only=True)
class _Crowd:
    """What a label has to live with; `placed` grows."""

    marks: Sequence[Mark]
    lines: Sequence[Line]
    placed: list[Label]

    def is_free(self, box: Box) -> bool:
        """Whether a text there hides no other text and no mark."""
        return not (
            any(box.overlaps(each.box, gap=1.0) for each in self.marks)
            or any(box.overlaps(each.box, gap=_GAP) for each in self.placed)
        )

    def penalty(self, label: Label, mark: Mark) -> float:
        """Pixels of distance that are worth going to avoid what this place would cross."""
        box, leader = label.box, label.leader
        crossed = sum(box.meets(each.leader) for each in self.placed if each.leader is not None)
        if leader is not None:
            apart = [each.box for each in self.marks if not each.box.overlaps(mark.box)]
            texts = [each.box for each in self.placed]
            crossed += sum(each.meets(leader) for each in (*apart, *texts))
        covered = sum(box.meets(line) for line in self.lines)
        return _CROSSING * crossed + _COVERING * covered + (_LEADER if leader is not None else 0.0)


def _place(mark: Mark, crowd: _Crowd, inside: Box, font_size: float) -> Label:
    best: Label | None = None
    least = math.inf
    for distance, label in _candidates(mark, font_size):
        if distance >= least:
            break  # nothing farther away can be better
        if inside.holds(label.box) and crowd.is_free(label.box):
            cost = distance + crowd.penalty(label, mark)
            if cost < least:
                best, least = label, cost
    assert best is not None, f"no room for the label {mark.label}"
    return best


def _candidates(mark: Mark, font_size: float) -> Iterator[tuple[float, Label]]:
    """Places and their distances, from near to far.

    At each distance right first, then left, above, below, and between.
    """
    width, height = text_width(mark.label, font_size), _LINE_HEIGHT * font_size
    turns = (0, 8, 4, 12, 2, 14, 6, 10, 1, 15, 3, 13, 5, 11, 7, 9)
    distance = mark.radius + 3
    while distance < _FARTHEST:
        for turn in turns:
            dx, dy = math.cos(turn * math.pi / 8), -math.sin(turn * math.pi / 8)
            # The box touches the circle of this distance from outside.
            x = mark.x + (distance + width / 2) * dx
            y = mark.y + (distance + height / 2) * dy
            box = Box(
                left=x - width / 2, top=y - height / 2, right=x + width / 2, bottom=y + height / 2
            )
            yield (
                distance,
                Label(
                    text=mark.label,
                    box=box,
                    anchor="middle" if abs(dx) < 0.5 else ("start" if dx > 0 else "end"),
                    leader=_leader(mark, box),
                ),
            )
        distance += 4


def _leader(mark: Mark, box: Box) -> Line | None:
    x, y = box.nearest(mark.x, mark.y)
    if math.hypot(x - mark.x, y - mark.y) <= mark.radius + _NEAR:
        return None
    return Line(x1=mark.x, y1=mark.y, x2=x, y2=y)
