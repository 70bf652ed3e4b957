"""Rendered scenes with questions, the tiny model's world: seeded, numpy and Pillow only."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from reference.scenes.drawing import draw
from reference.scenes.layout import Layout, draw_layout
from reference.scenes.questions import Question, ask

# Seeds from here on give held-out scenes: each holds a combination of shape, colour and place that
# no training scene holds, so the two sets are disjoint by construction and not only by seed.
HELD_OUT_SEED: Final = 1_000_000_000

DEFAULT_SIZE: Final = 256


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A rendered scene: RGB image, what it shows, and questions about it."""

    seed: int
    image: Image.Image
    layout: Layout
    questions: tuple[Question, ...]


def render(seed: int, *, size: int | tuple[int, int] = DEFAULT_SIZE) -> Scene:
    """Render the scene of `seed`; the same seed and size give the same pixels.

    Args:
        seed: 0 or more; `HELD_OUT_SEED` and above give held-out scenes.
        size: side of a square image, or (width, height), in pixels. What is shown and asked
            does not depend on it.
    """
    width, height = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(seed)
    layout = draw_layout(rng, held_out=seed >= HELD_OUT_SEED)
    questions = ask(layout, rng)
    image = draw(layout, rng, width=width, height=height)
    return Scene(seed=seed, image=image, layout=layout, questions=questions)


def training(index: int, *, size: int | tuple[int, int] = DEFAULT_SIZE) -> Scene:
    """Training scene `index`, 0 or more."""
    if not 0 <= index < HELD_OUT_SEED:
        raise ValueError(f"training scenes are numbered 0 to {HELD_OUT_SEED - 1}, not {index}")
    return render(index, size=size)


def held_out(index: int, *, size: int | tuple[int, int] = DEFAULT_SIZE) -> Scene:
    """Held-out scene `index`, 0 or more: never shown in training."""
    if index < 0:
        raise ValueError(f"held-out scenes are numbered from 0, not {index}")
    return render(HELD_OUT_SEED + index, size=size)
