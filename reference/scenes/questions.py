"""Questions with one right answer about a layout, and a description of all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from reference.scenes.layout import CountOf, Item, Layout
from reference.scenes.vocabulary import COLOURS, PLACES, SHAPES, at_place, plural

# Kinds whose answers are scored by exact match, and the free one.
EXACT_KINDS: Final = ("colour", "shape", "count", "exists", "position", "number")
DESCRIPTION_KIND: Final = "description"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a scene with its only right answer; `kind` is one of the kinds above."""

    text: str
    answer: str
    kind: str


def ask(layout: Layout, rng: np.random.Generator) -> tuple[Question, ...]:
    """One question of each kind that fits `layout`, the description last."""
    questions = [
        _colour(layout, rng),
        _shape(layout, rng),
        _count(layout, rng),
        _exists(layout, rng),
        _position(layout, rng),
    ]
    if layout.number is not None:
        text = _pick(
            rng,
            (
                "What number is written in the image?",
                "Which number do you see?",
                "What is the number?",
            ),
        )
        questions.append(Question(text=text, answer=str(layout.number.value), kind="number"))
    text = _pick(rng, ("Describe the image.", "What is in the image?"))
    questions.append(Question(text=text, answer=describe(layout), kind=DESCRIPTION_KIND))
    return tuple(questions)


def practise(layout: Layout, rng: np.random.Generator) -> tuple[Question, ...]:
    """More training questions of the kinds that compare all items: count, exists, position.

    Counts are drawn so that each number that occurs in the scene is asked for equally often.
    """
    names: dict[int, list[tuple[CountOf, str]]] = {}
    known: Mapping[CountOf, tuple[str, ...]] = {"colour": tuple(COLOURS), "shape": SHAPES}
    for attribute, attribute_names in known.items():
        for name in attribute_names:
            count = sum(getattr(item, attribute) == name for item in layout.items)
            names.setdefault(count, []).append((attribute, name))
    numbers = sorted(names)
    chosen = names[numbers[int(rng.integers(len(numbers)))]]
    count_of, counted = chosen[int(rng.integers(len(chosen)))]
    counting = replace(layout, count_of=count_of, counted=counted)
    return (_count(counting, rng), _exists(layout, rng), _position(layout, rng))


def describe(layout: Layout) -> str:
    """Everything in reading order: `A red star at the top left and a blue cross in the middle.`"""
    parts = {item.place: f"{_article(item.colour)} {item.name}" for item in layout.items}
    if layout.number is not None:
        parts[layout.number.place] = f"the number {layout.number.value}"
    phrases = [f"{parts[place]} {at_place(place)}" for place in _reading_order(parts)]
    text = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return f"{text[0].upper()}{text[1:]}."


def _reading_order(parts: dict[str, str]) -> list[str]:
    return [place for place in PLACES if place in parts]


def _pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    return texts[int(rng.integers(len(texts)))]


def _pick_item(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _name_of(item: Item, layout: Layout) -> str:
    """The shape alone where it is the only one of its kind, else colour and shape."""
    alike = [other for other in layout.items if other.shape == item.shape]
    return item.shape if len(alike) == 1 else item.name


def _colour(layout: Layout, rng: np.random.Generator) -> Question:
    item = _pick_item(rng, layout.items)
    colour_word = _pick(rng, ("colour", "color"))
    named_by_shape = _name_of(item, layout) == item.shape and rng.random() < 0.6
    subject = item.shape if named_by_shape else f"shape {at_place(item.place)}"
    return Question(text=f"What {colour_word} is the {subject}?", answer=item.colour, kind="colour")


def _shape(layout: Layout, rng: np.random.Generator) -> Question:
    item = _pick_item(rng, layout.items)
    texts = [
        f"Which shape is {at_place(item.place)}?",
        f"What shape is {at_place(item.place)}?",
    ]
    if sum(other.colour == item.colour for other in layout.items) == 1:
        texts.append(f"Which shape is {item.colour}?")
    return Question(text=_pick(rng, texts), answer=item.shape, kind="shape")


def _count(layout: Layout, rng: np.random.Generator) -> Question:
    what = {
        "all": "shapes",
        "colour": f"{layout.counted} shapes",
        "shape": plural(layout.counted),
    }[layout.count_of]
    text = _pick(rng, (f"How many {what} are there?", f"How many {what} do you see?"))
    return Question(text=text, answer=str(layout.count), kind="count")


def _exists(layout: Layout, rng: np.random.Generator) -> Question:
    """Half yes, half no; a no about colour and shape often names both from different items."""
    wanted = bool(rng.random() < 0.5)
    style = rng.random()
    if style < 0.15:
        present = {item.shape for item in layout.items}
        subject = _choose(rng, SHAPES, present, wanted=wanted)
    elif style < 0.3:
        present = {item.colour for item in layout.items}
        subject = f"{_choose(rng, tuple(COLOURS), present, wanted=wanted)} shape"
    elif wanted:
        subject = _pick_item(rng, layout.items).name
    else:
        subject = _absent_pair(layout, rng)
    answer = "yes" if wanted else "no"
    return Question(text=f"Is there {_article(subject)} {subject}?", answer=answer, kind="exists")


def _choose(
    rng: np.random.Generator, names: Sequence[str], present: set[str], *, wanted: bool
) -> str:
    return _pick(rng, [name for name in names if (name in present) == wanted])


def _absent_pair(layout: Layout, rng: np.random.Generator) -> str:
    present = {item.name for item in layout.items}
    shapes = [item.shape for item in layout.items]
    colours = [item.colour for item in layout.items]
    crossed = [f"{colour} {shape}" for colour in colours for shape in shapes]
    hard = [name for name in crossed if name not in present]
    near = [f"{colour} {shape}" for colour in COLOURS for shape in shapes]
    near += [f"{colour} {shape}" for colour in colours for shape in SHAPES]
    easy = [name for name in near if name not in present]
    return _pick(rng, hard if hard and rng.random() < 0.6 else easy)


def _position(layout: Layout, rng: np.random.Generator) -> Question:
    if layout.number is not None and rng.random() < 0.15:
        return Question(text="Where is the number?", answer=layout.number.place, kind="position")
    item = _pick_item(rng, layout.items)
    return Question(
        text=f"Where is the {_name_of(item, layout)}?", answer=item.place, kind="position"
    )
