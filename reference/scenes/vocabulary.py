"""What a scene can hold, and the combinations that are kept away from training."""

from typing import Final

SHAPES: Final = ("circle", "square", "triangle", "star", "cross", "diamond")

# Base RGB of each colour; the renderer adds a little jitter that keeps the names apart.
COLOURS: Final = {
    "red": (205, 35, 35),
    "orange": (245, 140, 20),
    "yellow": (245, 225, 40),
    "green": (40, 155, 60),
    "blue": (40, 80, 215),
    "purple": (145, 50, 175),
}

# Centre of each place as a share of the image's width and height, in reading order.
PLACES: Final = {
    "top left": (0.22, 0.22),
    "top right": (0.78, 0.22),
    "middle": (0.50, 0.50),
    "bottom left": (0.22, 0.78),
    "bottom right": (0.78, 0.78),
}

# Two-digit numbers that appear in held-out scenes only; training sees every digit at both places.
HELD_OUT_NUMBERS: Final = frozenset({13, 27, 31, 46, 58, 64, 72, 85, 90})

_SHAPE_INDEX: Final = {name: index for index, name in enumerate(SHAPES)}
_COLOUR_INDEX: Final = {name: index for index, name in enumerate(COLOURS)}
_PLACE_INDEX: Final = {name: index for index, name in enumerate(PLACES)}


def is_held_out(shape: str, colour: str, place: str) -> bool:
    """Whether no training scene may hold this shape in this colour at this place.

    One colour per shape and place is held out (30 of the 180 combinations); each pair of shape and
    colour is held out at one place at most, so training still sees every pair.
    """
    total = _SHAPE_INDEX[shape] + _COLOUR_INDEX[colour] + _PLACE_INDEX[place]
    return total % len(COLOURS) == 0


def at_place(place: str) -> str:
    """The place as a phrase: `at the top left`, `in the middle`."""
    return "in the middle" if place == "middle" else f"at the {place}"


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return f"{shape}es" if shape == "cross" else f"{shape}s"
