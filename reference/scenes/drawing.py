"""Draw a layout with Pillow: shaded background, jittered shapes, printed number, light noise."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reference.scenes.layout import Item, Layout, Number
from reference.scenes.vocabulary import COLOURS, PLACES

Point = tuple[float, float]
Colour = tuple[int, int, int]

# Shapes are drawn at twice the size and averaged down: smooth edges without a drawing library.
_OVERSAMPLING = 2
_NOISE_LEVELS = 6  # uniform noise of -6..6 grey levels


def draw(layout: Layout, rng: np.random.Generator, *, width: int, height: int) -> Image.Image:
    """Render `layout` as an RGB image of `width` x `height` pixels.

    Sizes of shapes follow the shorter side; places follow width and height.
    """
    large = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    image, is_dark = _background(rng, large)
    canvas = ImageDraw.Draw(image)
    for item in layout.items:
        _draw_item(canvas, item, rng, large)
    if layout.number is not None:
        _draw_number(canvas, layout.number, rng, large, light=is_dark)
    pixels = np.asarray(image.reduce(_OVERSAMPLING), dtype=np.int16)
    noise = rng.integers(-_NOISE_LEVELS, _NOISE_LEVELS + 1, size=pixels.shape, dtype=np.int16)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _background(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Image.Image, bool]:
    """A greyish gradient between two near shades, clearly dark or clearly light."""
    is_dark = bool(rng.random() < 0.4)
    low, high = (15, 60) if is_dark else (190, 240)
    base = rng.integers(low, high, size=(2, 2, 1))
    corners = np.clip(base + rng.integers(-10, 11, size=(2, 2, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR), is_dark


def _centre(place: str, rng: np.random.Generator, size: tuple[int, int]) -> Point:
    across, down = PLACES[place]
    jitter_x, jitter_y = rng.uniform(-0.045, 0.045, size=2)
    return (across + jitter_x) * size[0], (down + jitter_y) * size[1]


def _draw_item(
    canvas: ImageDraw.ImageDraw, item: Item, rng: np.random.Generator, size: tuple[int, int]
) -> None:
    centre = _centre(item.place, rng, size)
    radius = float(rng.uniform(0.10, 0.15)) * min(size)
    turn = float(rng.uniform(-0.15, 0.15))
    jitter = rng.integers(-14, 15, size=3)
    red, green, blue = np.clip(np.asarray(COLOURS[item.colour]) + jitter, 0, 255)
    fill = (int(red), int(green), int(blue))
    if item.shape == "circle":
        x, y = centre
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        return
    canvas.polygon(_turned(_OUTLINES[item.shape](), centre, radius, turn), fill=fill)


def _turned(outline: list[Point], centre: Point, radius: float, turn: float) -> list[Point]:
    cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in outline]


def _square() -> list[Point]:
    return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]


def _triangle() -> list[Point]:
    return [(0.0, -1.0), (0.95, 0.8), (-0.95, 0.8)]


def _star() -> list[Point]:
    points = []
    for index in range(10):
        reach = 1.1 if index % 2 == 0 else 0.45
        angle = math.pi * index / 5 - math.pi / 2
        points.append((reach * math.cos(angle), reach * math.sin(angle)))
    return points


def _cross() -> list[Point]:
    arm = 0.32
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    points: list[Point] = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


def _diamond() -> list[Point]:
    return [(0.0, -1.15), (0.75, 0.0), (0.0, 1.15), (-0.75, 0.0)]


_OUTLINES: Mapping[str, Callable[[], list[Point]]] = {
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "diamond": _diamond,
}


def _draw_number(
    canvas: ImageDraw.ImageDraw,
    number: Number,
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    light: bool,
) -> None:
    centre = _centre(number.place, rng, size)
    font = ImageFont.load_default(size=float(rng.uniform(0.22, 0.28)) * min(size))
    shade = int(rng.integers(225, 256)) if light else int(rng.integers(0, 30))
    fill: Colour = (shade, shade, shade)
    canvas.text(centre, str(number.value), font=font, fill=fill, anchor="mm")
