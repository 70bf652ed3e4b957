"""Stages around checkpoints: making one up, checking and describing one, weights for PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig:
    """Which checkpoint to make up."""

    size: Literal["0.5b", "1.5b", "7b", "real-tower"]
    seed: int
    layout: Literal["apple", "transformers"]


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """What the build wants of the checkpoint.

    Attributes:
        image_size: side of the square the vision tower will see, pixels, a multiple of 64.
        context_length: positions of prompt, image and answer together.
    """

    image_size: int
    context_length: int


@dataclass(frozen=True, kw_only=True)
class TorchWeightsConfig:
    """Nothing to choose: the weights are kept as they are."""


def synthesize(
    config: SynthesizeConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write a checkpoint of a known size with made-up weights."""
    from fastvlm_compile.checkpoint.synthesize import plan_size, write_checkpoint

    del inputs
    write_checkpoint(plan_size(config.size, config.layout), config.seed, out, progress)


def inspect(
    config: InspectConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `checkpoint.json` and `processor/` of a usable checkpoint.

    Args:
        config: image size and context length of the build.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of each tensor that is digested.

    Raises:
        CheckpointError: the checkpoint cannot be used; its problems are listed.
    """
    from fastvlm_compile.checkpoint.describe import describe

    describe(
        inputs["weights"],
        out,
        progress,
        image_size=config.image_size,
        context_length=config.context_length,
    )


def torch_weights(
    config: TorchWeightsConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write the weights as one checkpoint in Apple's layout, without tokenizer and processor.

    Args:
        config: empty.
        inputs: `weights`, a checkpoint in any layout.
        out: an empty directory.
        progress: told of each tensor.
    """
    from fastvlm_compile.checkpoint.convert import write_weights

    del config
    write_weights(inputs["weights"], "apple", out, progress)
