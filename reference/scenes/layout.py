"""Which things stand where in a scene, drawn so that every kind of question is balanced."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reference.scenes.vocabulary import COLOURS, HELD_OUT_NUMBERS, PLACES, SHAPES, is_held_out

CountOf = Literal["colour", "shape", "all"]

_MAX_COUNT = 4
_NUMBER_SHARE = 0.45


@dataclass(frozen=True, kw_only=True)
class Item:
    """One coloured shape at one place."""

    shape: str
    colour: str
    place: str

    @property
    def name(self) -> str:
        """Colour and shape, unique within a scene: `red circle`."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, kw_only=True)
class Number:
    """A printed two-digit number."""

    value: int
    place: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a scene shows, and what its counting question is about.

    Attributes:
        items: in reading order of their places; no two share both shape and colour.
        number: the printed number, if any; never at the place of an item.
        count_of: what is counted; `counted` is that colour's or shape's name (empty for all).
    """

    items: tuple[Item, ...]
    number: Number | None
    count_of: CountOf
    counted: str

    @property
    def count(self) -> int:
        """The answer of the counting question."""
        if self.count_of == "all":
            return len(self.items)
        return sum(getattr(item, self.count_of) == self.counted for item in self.items)

    @property
    def holds_held_out(self) -> bool:
        """Whether any item is a combination that training must not show."""
        return any(is_held_out(item.shape, item.colour, item.place) for item in self.items)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The part of a layout that is drawn once, so that rejecting items cannot skew the answers."""

    places: tuple[str, ...]
    number: Number | None
    count_of: CountOf
    counted: str
    count: int


def draw_layout(rng: np.random.Generator, *, held_out: bool) -> Layout:
    """Draw a layout: with a held-out combination if `held_out`, else with none."""
    while True:
        plan = _draw_plan(rng, held_out=held_out)
        for _ in range(200):
            layout = _fill(plan, rng)
            if layout is not None and layout.holds_held_out == held_out:
                return layout


def _draw_plan(rng: np.random.Generator, *, held_out: bool) -> _Plan:
    number = None
    places = [str(place) for place in rng.permutation(list(PLACES))]
    if rng.random() < _NUMBER_SHARE:
        number = Number(value=_draw_number(rng, held_out=held_out), place=places.pop())
    kinds: tuple[CountOf, ...] = ("colour", "shape", "all")
    count_of = kinds[int(rng.choice(3, p=(0.45, 0.45, 0.1)))]
    if count_of == "all":
        num_items = count = int(rng.integers(1, _MAX_COUNT + 1))
    else:
        count = int(rng.integers(0, _MAX_COUNT + 1))
        num_items = int(rng.integers(max(count, 1), len(places) + 1))
    names: Mapping[CountOf, tuple[str, ...]] = {
        "colour": tuple(COLOURS),
        "shape": SHAPES,
        "all": ("",),
    }
    counted = str(rng.choice(names[count_of]))
    reading_order = tuple(place for place in PLACES if place in places[:num_items])
    return _Plan(
        places=reading_order, number=number, count_of=count_of, counted=counted, count=count
    )


def _draw_number(rng: np.random.Generator, *, held_out: bool) -> int:
    while True:
        value = int(rng.integers(10, 100))
        if held_out or value not in HELD_OUT_NUMBERS:
            return value


def _fill(plan: _Plan, rng: np.random.Generator) -> Layout | None:
    """Give each place a shape and a colour; None if two items came out alike."""
    order = rng.permutation(len(plan.places))
    counted = {plan.places[index] for index in order[: plan.count]}
    items = []
    for place in plan.places:
        shape = _draw_name(rng, SHAPES, plan, "shape", counted=place in counted)
        colour = _draw_name(rng, tuple(COLOURS), plan, "colour", counted=place in counted)
        items.append(Item(shape=shape, colour=colour, place=place))
    if len({item.name for item in items}) < len(items):
        return None
    return Layout(
        items=tuple(items), number=plan.number, count_of=plan.count_of, counted=plan.counted
    )


def _draw_name(
    rng: np.random.Generator, names: tuple[str, ...], plan: _Plan, attribute: str, *, counted: bool
) -> str:
    if attribute != plan.count_of:
        return str(rng.choice(names))
    if counted:
        return plan.counted
    return str(rng.choice([name for name in names if name != plan.counted]))
