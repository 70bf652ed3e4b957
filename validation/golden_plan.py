"""How many goldens of each kind there are. Imports nothing, so the plan of a build may hold one."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class GoldenPlan:
    """How many of each kind.

    Attributes:
        image_size: side of the square that the vision tower sees, pixels.
        fit: how an image becomes that square.
        image_position: image before or after the question.
        scenes: rendered held-out scenes, one question each, kinds taking turns.
        photographs: photographs, one of `prompts` each in turn.
        prompts: also asked once without an image and once about the first two images together.
        max_new_tokens: limit of the greedy answers.
        task_questions: held-out scene questions with known answers, several per scene.
        context_to_fill: positions of a case that takes them all; 0 for no such case.
        image_sizes: further sizes in pixels, in which the first and the plain image are kept too.
    """

    image_size: int
    fit: Literal["pad", "crop"]
    image_position: Literal["before", "after"]
    scenes: int
    photographs: int
    prompts: tuple[str, ...]
    max_new_tokens: int
    task_questions: int
    context_to_fill: int = 0
    image_sizes: tuple[int, ...] = ()
