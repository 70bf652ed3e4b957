"""How many calibration inputs of each kind there are. Imports nothing, so a plan may hold one."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """How many inputs of each kind.

    Attributes:
        image_size: side S of the square that the vision tower sees, pixels.
        fit: how an image becomes that square.
        image_position: image before or after the question.
        scenes: rendered scenes, one question with its answer each, kinds taking turns.
        photographs: photographs, one of `prompts` each in turn.
        prompts: each asked once without an image, too.
    """

    image_size: int
    fit: Literal["pad", "crop"]
    image_position: Literal["before", "after"]
    scenes: int
    photographs: int
    prompts: tuple[str, ...]
