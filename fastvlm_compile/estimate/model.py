"""What an estimate has to know of a checkpoint: its tensors' shapes, not their values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.checkpoint.sizes import size_named
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Shape
from fastvlm_compile.recipe_checkpoint import SyntheticCheckpoint
from reference.checkpoint.names import (
    EMBED_TOKENS,
    HEAD_PROJECTION,
    LM_HEAD,
    PROJECTOR_PREFIX,
    VISION_PREFIX,
)
from reference.config import FastVLMConfig

ModelPart = Literal["tower", "projector", "embedding", "layers", "head"]
PARTS: tuple[ModelPart, ...] = ("tower", "projector", "embedding", "layers", "head")
LANGUAGE: tuple[ModelPart, ...] = ("embedding", "layers", "head")

_HALF = 2


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A checkpoint without its numbers.

    Attributes:
        config: of the model.
        shapes: of the tensors in its files, by canonical name.
        stored_bytes: of the tensors in its files.
        tied: whether the output head is the embedding.
    """

    config: FastVLMConfig
    shapes: Mapping[str, Shape]
    stored_bytes: int
    tied: bool

    def tensors(self, *parts: ModelPart) -> dict[str, Shape]:
        """What is computed with of some parts. A shared head is there once for each use."""
        found = {name: shape for name, shape in self.shapes.items() if part_of(name) in parts}
        if self.tied:
            found.pop(LM_HEAD, None)
            if "head" in parts and "embedding" in parts:
                found[LM_HEAD] = self.shapes[EMBED_TOKENS]
            elif "head" in parts:
                found[EMBED_TOKENS] = self.shapes[EMBED_TOKENS]
        return found

    def numbers(self, *parts: ModelPart) -> int:
        """How many numbers these tensors hold."""
        return sum(math.prod(shape) for shape in self.tensors(*parts).values())

    @property
    def largest_tensor(self) -> int:
        """Numbers of the largest matrix of the language model."""
        return max(math.prod(shape) for shape in self.tensors(*LANGUAGE).values())


def part_of(name: str) -> ModelPart | None:
    """The part that a tensor belongs to; None for what no target computes with."""
    if name == HEAD_PROJECTION or name.endswith(".num_batches_tracked"):
        return None
    if name.startswith(VISION_PREFIX):
        return "tower"
    if name.startswith(PROJECTOR_PREFIX):
        return "projector"
    return {EMBED_TOKENS: "embedding", LM_HEAD: "head"}.get(name, "layers")  # type: ignore[return-value]


def synthetic_facts(synthetic: SyntheticCheckpoint) -> ModelFacts:
    """Of a checkpoint that is yet to be made up."""
    from reference.checkpoint.expected import expected_tensors
    from reference.config import parse_config

    if synthetic.layout == "transformers":
        from fastvlm_compile.checkpoint.synthesize import plan_size  # loads PyTorch

        config = plan_size(synthetic.size, "transformers").config
    else:
        from fastvlm_compile.checkpoint.configs import apple_config

        raw = apple_config(size_named(synthetic.size))
        config = parse_config(raw, source=f"the size {synthetic.size}")
    shapes = expected_tensors(config)
    stored = _HALF * sum(math.prod(shape) for shape in shapes.values())
    return ModelFacts(config=config, shapes=shapes, stored_bytes=stored, tied=False)


def checkpoint_facts(folder: Path) -> ModelFacts:
    """Of a checkpoint on disk, from its config and the headers of its files.

    Raises:
        CheckpointError, ConfigError: it cannot be read.
    """
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(folder)
    return ModelFacts(
        config=checkpoint.config,
        shapes={name: info.shape for name, info in checkpoint.tensors.items()},
        stored_bytes=sum(info.size_bytes for info in checkpoint.tensors.values()),
        tied=checkpoint.tied,
    )


def vision_flop(shapes: Mapping[str, Shape], image_size: int) -> float:
    """Operations of the tower on one image: two a weight and position, attention left out."""
    total = 0.0
    for name, shape in shapes.items():
        if part_of(name) == "tower" and role_of(name, shape) != "other":
            total += 2 * math.prod(shape) * (image_size / _stride(name)) ** 2
    return total


_STRIDES = (4, 8, 8, 16, 16, 32, 32, 32, 64, 64, 64)
"""Pixels per position and side behind each `network.N` of FastViTHD."""


def _stride(name: str) -> int:
    where, index = name.removeprefix(VISION_PREFIX).split(".")[:2]
    if where == "patch_embed":
        return 2 if index == "0" else 4
    return _STRIDES[int(index)] if where == "network" else 64
