"""Labels are near their marks, over no other text and no mark, and inside."""

from itertools import combinations

import pytest

from fastvlm_compile.report.labels import Box, Label, Line, Mark, place_labels, text_width

INSIDE = Box(left=0, top=0, right=900, bottom=400)


def _mark(x: float, y: float, label: str = "int4-fast") -> Mark:
    return Mark(x=x, y=y, radius=5, label=label)


def _problems(marks: list[Mark], labels: tuple[Label, ...]) -> list[str]:
    found = [f"{a.text} over {b.text}" for a, b in combinations(labels, 2) if a.box.overlaps(b.box)]
    found += [
        f"{label.text} over the mark of {mark.label}"
        for label in labels
        for mark in marks
        if label.box.overlaps(mark.box)
    ]
    found += [f"{label.text} outside" for label in labels if not INSIDE.holds(label.box)]
    return found


@pytest.mark.parametrize(
    "marks",
    [
        [_mark(450, 200, f"variant-{n}") for n in range(24)],
        [_mark(450 + n / 3, 200 - n / 5, f"int{n}") for n in range(24)],
        [_mark(x, y, f"{x}/{y}") for x in (5, 895) for y in (5, 200, 395)],
        [_mark(100 + 12 * n, 399, "int4-fast") for n in range(20)],
    ],
    ids=["all in one place", "a dense cloud", "corners", "along an edge"],
)
def test_close_points_get_labels_that_do_not_overlap(marks: list[Mark]) -> None:
    labels = place_labels(marks, inside=INSIDE, font_size=12)
    assert [label.text for label in labels] == [mark.label for mark in marks]
    assert _problems(marks, labels) == []


def test_the_check_itself_finds_overlaps() -> None:
    marks = [_mark(450, 200), _mark(455, 200)]
    careless = tuple(place_labels([mark], inside=INSIDE, font_size=12)[0] for mark in marks)
    assert _problems(marks, careless)


def test_a_lone_label_stands_right_beside_its_mark_without_a_line() -> None:
    (label,) = place_labels([_mark(450, 200)], inside=INSIDE, font_size=12)
    assert label.leader is None
    assert label.anchor == "start"
    assert 0 < label.x - 455 < 10
    assert label.box.right - label.box.left == pytest.approx(text_width("int4-fast", 12))


def test_at_the_right_edge_the_text_ends_at_its_mark() -> None:
    (label,) = place_labels([_mark(890, 200)], inside=INSIDE, font_size=12)
    assert label.anchor == "end"
    assert 0 < 885 - label.x < 10


def test_a_label_far_from_its_mark_has_a_line_to_it() -> None:
    marks = [_mark(450, 200) for _ in range(12)]
    leaders = [label.leader for label in place_labels(marks, inside=INSIDE, font_size=12)]
    assert any(leader is not None and (leader.x1, leader.y1) == (450, 200) for leader in leaders)


def test_a_label_steps_aside_for_a_line() -> None:
    line = Line(x1=0, y1=200, x2=900, y2=200)
    (label,) = place_labels([_mark(450, 200)], inside=INSIDE, font_size=12, lines=[line])
    assert not label.box.meets(line)
    (careless,) = place_labels([_mark(450, 200)], inside=INSIDE, font_size=12)
    assert careless.box.meets(line)


def test_equal_marks_give_equal_labels() -> None:
    marks = [_mark(450 + n, 200, f"v{n}") for n in range(15)]
    assert place_labels(marks, inside=INSIDE, font_size=12) == place_labels(
        marks, inside=INSIDE, font_size=12
    )


@pytest.mark.parametrize(
    ("line", "meets"),
    [
        ((0, 0, 100, 100), True),
        ((50, 0, 50, 100), True),
        ((0, 50, 30, 50), False),
        ((0, 50, 45, 50), True),
        ((0, 30, 30, 0), False),
        ((0, 39, 100, 39), False),
        ((50, 50, 50, 50), True),
        ((70, 70, 70, 70), False),
    ],
)
def test_a_line_meets_a_box_when_some_of_it_is_inside(
    line: tuple[float, float, float, float], meets: bool
) -> None:
    x1, y1, x2, y2 = line
    box = Box(left=40, top=40, right=60, bottom=60)
    assert box.meets(Line(x1=x1, y1=y1, x2=x2, y2=y2)) == meets
    assert box.meets(Line(x1=x2, y1=y2, x2=x1, y2=y1)) == meets
