"""Stages `policy.mixed*` and `quantize.mixed*`: bits by sensitivity, within a budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_compile.progress import Progress

if TYPE_CHECKING:
    from fastvlm_compile.quantize.calibration import Calibration
    from fastvlm_compile.quantize.sensitivity import Prompt
    from reference.fastvlm import FastVLM


@dataclass(frozen=True, kw_only=True)
class MixedConfig:
    """What the search may choose from, and its budget.

    Attributes:
        target: whose schemes and bytes count.
        mixed_bits: bits per weight of the language model, at most.
        max_prompts: of the calibration, evenly taken; each candidate runs all of them.
    """

    target: Literal["onnx", "coreml", "mlx"]
    mixed_bits: float
    max_prompts: int = 12


@dataclass(frozen=True, kw_only=True)
class ChosenConfig:
    """Nothing is left to decide: the policy says it all."""


def policy(config: MixedConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Write `policy.json` (see `fastvlm_compile.quantize.policy_file`).

    Args:
        config: see there.
        inputs: `weights`, a checkpoint in any layout, and `calibration`.
        out: an empty directory.
        progress: told of every candidate.
    """
    from fastvlm_compile.quantize.calibration import open_calibration
    from fastvlm_compile.quantize.choice import Choice
    from fastvlm_compile.quantize.methods import quantize_tensor
    from fastvlm_compile.quantize.mixed import choose_mixed
    from fastvlm_compile.quantize.policy_file import write_policy
    from fastvlm_compile.quantize.roles import role_of
    from fastvlm_compile.quantize.scheme import Palette
    from reference.checkpoint.names import LM_HEAD
    from reference.checkpoint.tensors import open_checkpoint
    from reference.loading import build

    checkpoint = open_checkpoint(inputs["weights"])
    roles = ("embedding", "head", "language")
    shapes = {
        name: info.shape
        for name, info in checkpoint.tensors.items()
        if role_of(name, info.shape) in roles and not (name == LM_HEAD and checkpoint.tied)
    }
    model = build(checkpoint)
    write_policy(
        out,
        choose_mixed(
            model,
            _prompts(model, open_calibration(inputs["calibration"]), config.max_prompts),
            shapes,
            target=config.target,
            mean_bits=config.mixed_bits,
            # Inputs are not weighed here: every candidate would have to gather them anew.
            quantize=lambda _, weight, scheme: quantize_tensor(
                weight.numpy(),
                Choice(
                    scheme=scheme,
                    method="clustering" if isinstance(scheme, Palette) else "search",
                ),
                None,
            ),
            progress=progress,
        ),
    )


def quantize(
    config: ChosenConfig,  # noqa: ARG001
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
) -> None:
    """Write quantized weights (see `fastvlm_compile.quantize.weights_file`).

    Args:
        config: empty.
        inputs: `weights`, a checkpoint in any layout, `calibration`, and `policy`.
        out: an empty directory.
        progress: told of every tensor.
    """
    from fastvlm_compile.quantize.calibration import open_calibration
    from fastvlm_compile.quantize.policy_file import read_choices
    from fastvlm_compile.quantize.run import quantize_checkpoint
    from reference.checkpoint.tensors import open_checkpoint

    quantize_checkpoint(
        open_checkpoint(inputs["weights"]),
        read_choices(inputs["policy"]),
        open_calibration(inputs["calibration"]),
        out,
        progress,
    )


def _prompts(model: "FastVLM", calibration: "Calibration", count: int) -> "list[Prompt]":
    """Evenly taken cases, each image encoded once."""
    import torch

    from fastvlm_compile.quantize.sensitivity import Prompt

    cases = calibration.cases
    step = max(1, len(cases) // count)
    found = []
    for case in cases[::step][:count]:
        features = None
        if case.image_ids:
            pixels = [torch.from_numpy(calibration.pixel_values(each)) for each in case.image_ids]
            with torch.inference_mode():
                features = model.encode_image(torch.stack(pixels))
        found.append(Prompt(input_ids=torch.tensor([case.token_ids]), image_features=features))
    return found
