"""Choices, calibration inputs and checkpoints that watch how they are read."""

import weakref
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.calibration import (
    Calibration,
    open_calibration,
    write_calibration,
)
from fastvlm_compile.quantize.calibration_plan import CalibrationPlan
from fastvlm_compile.quantize.choice import Choice, Method
from fastvlm_compile.quantize.roles import Role, role_of
from fastvlm_compile.quantize.scheme import Affine
from reference.checkpoint.tensors import Checkpoint
from reference.prompt import load_tokenizer

INT4 = Affine(bits=4, block_size=32, symmetric=True)
INT8 = Affine(bits=8, block_size=0, symmetric=True)
VISION: tuple[Role, ...] = ("vision_linear", "vision_pointwise", "vision_dense")


def plan(**changes: object) -> CalibrationPlan:
    values: dict[str, object] = {
        "image_size": 128,
        "fit": "pad",
        "image_position": "before",
        "scenes": 3,
        "photographs": 1,
        "prompts": ("Describe the image.",),
    }
    return CalibrationPlan(**{**values, **changes})  # type: ignore[arg-type]


def make_calibration(weights: Path, folder: Path, **changes: object) -> Calibration:
    folder.mkdir()
    write_calibration(plan(**changes), load_tokenizer(weights), folder, silent)
    return open_calibration(folder)


def choices_of(checkpoint: Checkpoint, language: Method) -> dict[str, Choice]:
    """Vision int8, projector and language int4 by the method, embedding int4 by `search`."""
    choices = {}
    for name, info in checkpoint.tensors.items():
        role = role_of(name, info.shape)
        if role in VISION:
            choices[name] = Choice(scheme=INT8, method="search")
        elif role in ("language", "head", "projector"):
            choices[name] = Choice(scheme=INT4, method=language)
        elif role == "embedding":
            choices[name] = Choice(scheme=INT4, method="search")
    return choices


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@dataclass(frozen=True, kw_only=True)
class WatchedCheckpoint(Checkpoint):
    """Knows which tensors were read and how many bytes of them were alive at once."""

    reads: list[str] = field(default_factory=list)
    alive: dict[int, int] = field(default_factory=dict)
    peaks: list[int] = field(default_factory=list)

    def read(self, name: str) -> torch.Tensor:
        self.reads.append(name)
        tensor = super().read(name).to(torch.float32, copy=True)
        self.alive[id(tensor)] = tensor.nbytes
        weakref.finalize(tensor, self.alive.pop, id(tensor))
        self.peaks.append(sum(self.alive.values()))
        return tensor


def watched(checkpoint: Checkpoint) -> WatchedCheckpoint:
    return WatchedCheckpoint(
        path=checkpoint.path, config=checkpoint.config, tensors=checkpoint.tensors
    )


class Interrupted(Exception):  # noqa: N818 - it stands for a kill, it is no error
    """The process was killed."""


class KillAfter:
    """A `Progress` that is killed when it hears of the tensor after `count` others."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, done: int, total: int, what: str) -> None:
        if done >= self.count:
            raise Interrupted
