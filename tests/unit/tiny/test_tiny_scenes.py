"""Scenes: deterministic, disjoint, balanced, and with one right answer per question."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from reference.scenes.layout import Item, Layout, draw_layout
from reference.scenes.questions import DESCRIPTION_KIND, EXACT_KINDS, Question, ask, describe
from reference.scenes.scene import HELD_OUT_SEED, held_out, render, training
from reference.scenes.vocabulary import (
    COLOURS,
    HELD_OUT_NUMBERS,
    PLACES,
    SHAPES,
    at_place,
    is_held_out,
    plural,
)

Asked = list[tuple[Layout, tuple[Question, ...]]]


def _asked(first: int, count: int) -> Asked:
    pairs = []
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        layout = draw_layout(rng, held_out=seed >= HELD_OUT_SEED)
        pairs.append((layout, ask(layout, rng)))
    return pairs


@pytest.fixture(scope="module")
def train_asked() -> Asked:
    return _asked(0, 1500)


@pytest.fixture(scope="module")
def held_out_asked() -> Asked:
    return _asked(HELD_OUT_SEED, 1500)


def test_the_same_seed_renders_the_same_scene_twice() -> None:
    first, second = render(7), render(7)
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert first.questions == second.questions


def test_another_seed_renders_another_scene() -> None:
    assert not np.array_equal(np.asarray(render(7).image), np.asarray(render(8).image))


@pytest.mark.parametrize("size", [256, 96, (320, 200), (201, 333)])
def test_scenes_come_in_the_size_asked_for_and_show_the_same(size: int | tuple[int, int]) -> None:
    scene = training(3, size=size)
    assert scene.image.size == ((size, size) if isinstance(size, int) else size)
    assert scene.image.mode == "RGB"
    assert scene.questions == training(3).questions


def test_an_item_has_its_colour_at_its_place() -> None:
    scene = training(11, size=512)
    for item in scene.layout.items:
        x, y = (round(share * 512) for share in PLACES[item.place])
        patch = np.asarray(scene.image)[y - 4 : y + 4, x - 4 : x + 4].reshape(-1, 3).mean(0)
        distances = {name: np.abs(patch - rgb).sum() for name, rgb in COLOURS.items()}
        assert min(distances, key=lambda name: distances[name]) == item.colour


def test_training_scenes_show_nothing_that_is_held_out(train_asked: Asked) -> None:
    for layout, _ in train_asked:
        assert not layout.holds_held_out
        assert layout.number is None or layout.number.value not in HELD_OUT_NUMBERS


def test_every_held_out_scene_shows_a_combination_never_trained_on(held_out_asked: Asked) -> None:
    assert all(layout.holds_held_out for layout, _ in held_out_asked)
    values = {layout.number.value for layout, _ in held_out_asked if layout.number is not None}
    assert values >= HELD_OUT_NUMBERS


def test_seeds_of_the_two_sets_cannot_be_mixed_up() -> None:
    with pytest.raises(ValueError, match="training scenes are numbered"):
        training(HELD_OUT_SEED)
    with pytest.raises(ValueError, match="numbered from 0"):
        held_out(-1)


def test_each_pair_of_shape_and_colour_is_held_out_at_one_place_at_most() -> None:
    for shape in SHAPES:
        for colour in COLOURS:
            assert sum(is_held_out(shape, colour, place) for place in PLACES) <= 1


def test_every_answer_follows_from_the_question_and_the_layout_alone(
    train_asked: Asked, held_out_asked: Asked
) -> None:
    for layout, questions in train_asked + held_out_asked:
        for question in questions:
            assert _right_answers(question.text, layout) == {question.answer}, question.text


def test_the_independent_reader_refuses_an_ambiguous_question() -> None:
    twins = tuple(
        Item(shape="star", colour=colour, place=place)
        for colour, place in (("red", "middle"), ("blue", "top left"))
    )
    layout = Layout(items=twins, number=None, count_of="all", counted="")
    assert _right_answers("What colour is the star?", layout) == {"red", "blue"}


def test_each_scene_asks_each_kind_once(train_asked: Asked) -> None:
    for layout, questions in train_asked:
        kinds = [question.kind for question in questions]
        assert kinds[-1] == DESCRIPTION_KIND
        expected = set(EXACT_KINDS) - (set() if layout.number is not None else {"number"})
        assert len(kinds) == len(set(kinds))
        assert set(kinds[:-1]) == expected


def test_a_constant_answer_is_near_chance_for_every_kind(held_out_asked: Asked) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for _, questions in held_out_asked:
        for question in questions:
            answers[question.kind][question.answer] += 1
    chance = {"colour": 1 / 6, "shape": 1 / 6, "count": 0.22, "exists": 0.5, "position": 0.2}
    for kind, expected in chance.items():
        counts = answers[kind]
        assert max(counts.values()) / counts.total() < expected + 0.06, kind
    assert max(answers["number"].values()) / answers["number"].total() < 0.05


def test_yes_and_no_cannot_be_told_from_the_question(held_out_asked: Asked) -> None:
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for _, questions in held_out_asked:
        for question in questions:
            if question.kind == "exists":
                style = "pair" if len(question.text.split()) == 5 else question.text.split()[-1]
                verdicts["shape" if style == "shape?" else style].append(question.answer == "yes")
    for style, answers in verdicts.items():
        if len(answers) > 100:
            assert abs(np.mean(answers) - 0.5) < 0.12, style


def test_a_description_names_everything_in_reading_order() -> None:
    layout = Layout(
        items=(
            Item(shape="star", colour="orange", place="top right"),
            Item(shape="circle", colour="red", place="middle"),
            Item(shape="cross", colour="blue", place="bottom left"),
        ),
        number=None,
        count_of="all",
        counted="",
    )
    assert describe(layout) == (
        "An orange star at the top right, a red circle in the middle "
        "and a blue cross at the bottom left."
    )


def _right_answers(text: str, layout: Layout) -> set[str]:
    """Every answer that the words of the question allow, read without the generator's help."""
    if text in {"Describe the image.", "What is in the image?"}:
        return {describe(layout)}
    if "number" in text:
        assert layout.number is not None
        place_asked = text.startswith("Where")
        return {layout.number.place if place_asked else str(layout.number.value)}
    if text.startswith("How many"):
        words = set(text.split())
        names = words & {*COLOURS, *(plural(shape) for shape in SHAPES)}
        return {str(sum(names <= {item.colour, plural(item.shape)} for item in layout.items))}
    return _about_items(text, layout)


def _about_items(text: str, layout: Layout) -> set[str]:
    place = next((place for place in PLACES if at_place(place) in text), None)
    words = set(re.findall(r"\w+", text))
    matching = [
        item
        for item in layout.items
        if (place is None or item.place == place)
        and words & set(SHAPES) <= {item.shape}
        and words & set(COLOURS) <= {item.colour}
    ]
    if text.startswith("Is there"):
        return {"yes" if matching else "no"}
    if text.startswith("Where"):
        return {item.place for item in matching}
    asks_colour = "What colour" in text or "What color" in text
    return {item.colour if asks_colour else item.shape for item in matching}
