"""Stages `sensitivity.*`, `policy.mixed*` and `quantize.mixed*`: bits where they are needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_compile.progress import Progress
from reference.kept import NOTHING_KEPT, Kept

if TYPE_CHECKING:
    from torch import Tensor

    from fastvlm_compile.quantize.calibration import Calibration
    from fastvlm_compile.quantize.scheme import Quantized
    from fastvlm_compile.quantize.sensitivity import Probe, Prompt
    from fastvlm_compile.quantize.tensor import QuantizedTensor
    from reference.checkpoint.tensors import Checkpoint
    from reference.fastvlm import FastVLM


@dataclass(frozen=True, kw_only=True)
class SensitivityConfig:
    """What is measured.

    Attributes:
        family: the schemes that are tried.
        mixed_positions: of calibration prompts that each candidate runs, about.
    """

    family: Literal["affine", "palette"]
    mixed_positions: int


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Whose bytes count, and how many there may be.

    Attributes:
        target: whose bytes count.
        mixed_bits: bits per weight of the language model, at most.
        mixed_positions: on which the outcome is measured, as the sensitivities were.
    """

    target: Literal["onnx", "coreml", "mlx"]
    mixed_bits: float
    mixed_positions: int


@dataclass(frozen=True, kw_only=True)
class ChosenConfig:
    """Nothing is left to decide: the policy says it all."""


def sensitivity(
    config: SensitivityConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Write `sensitivities.json` (see `fastvlm_compile.quantize.policy_file`).

    Args:
        config: see there.
        inputs: `weights`, a checkpoint in any layout, and `calibration`.
        out: an empty directory.
        progress: told of every candidate of every tensor.
        kept: what was found of each layer before a kill.
    """
    from fastvlm_compile.quantize.calibration import open_calibration
    from fastvlm_compile.quantize.families import CANDIDATES
    from fastvlm_compile.quantize.policy_file import write_sensitivities
    from fastvlm_compile.quantize.roles import role_of
    from fastvlm_compile.quantize.sensitivity import measure_sensitivity
    from reference.budget import FEW_RESIDENT_BYTES
    from reference.checkpoint.names import LM_HEAD
    from reference.checkpoint.tensors import open_checkpoint
    from reference.loading import build

    checkpoint = open_checkpoint(inputs["weights"])
    names = [
        name
        for name, info in checkpoint.tensors.items()
        if role_of(name, info.shape) in ("embedding", "head", "language")
        and not (name == LM_HEAD and checkpoint.tied)
    ]
    # A large embedding or head, quantized, stands beside what is resident: little may be.
    model = build(checkpoint, resident_bytes=FEW_RESIDENT_BYTES)
    prompts = _prompts(model, open_calibration(inputs["calibration"]), config.mixed_positions)
    measured = measure_sensitivity(
        model,
        checkpoint,
        prompts,
        names=names,
        schemes=CANDIDATES[config.family],
        quantize=_quantize,
        progress=progress,
        kept=kept,
    )
    write_sensitivities(out, measured)


def policy(config: PolicyConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Write `policy.json` (see `fastvlm_compile.quantize.policy_file`).

    Args:
        config: see there.
        inputs: `weights`, a checkpoint in any layout, `calibration`, and `sensitivity`.
        out: an empty directory.
        progress: told of the search and the measurement of its outcome.
    """
    from fastvlm_compile.quantize.calibration import open_calibration
    from fastvlm_compile.quantize.mixed import choose_mixed, describe_policy, together
    from fastvlm_compile.quantize.policy_file import read_sensitivities, write_policy
    from reference.checkpoint.tensors import open_checkpoint

    sensitivities = read_sensitivities(inputs["sensitivity"])
    progress(0, 2, "choosing bits")
    schemes = choose_mixed(sensitivities, target=config.target, mean_bits=config.mixed_bits)
    progress(1, 2, "measuring the choice")
    checkpoint = open_checkpoint(inputs["weights"])
    opened = open_calibration(inputs["calibration"])
    probe, prompts = _probe(checkpoint, opened, config.mixed_positions)
    measured_kl = together(probe, checkpoint, prompts, schemes, _quantize)
    progress(2, 2, "policy measured")
    write_policy(
        out,
        describe_policy(sensitivities, schemes, target=config.target, measured_kl=measured_kl),
    )


def quantize(
    config: ChosenConfig,  # noqa: ARG001
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Write quantized weights (see `fastvlm_compile.quantize.weights_file`).

    Args:
        config: empty.
        inputs: `weights`, a checkpoint in any layout, `calibration`, and `policy`.
        out: an empty directory.
        progress: told of every tensor.
        kept: the tensors that were quantized before a kill.
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
        kept=kept,
    )


def _quantize(name: str, weight: "Tensor", scheme: "Quantized") -> "QuantizedTensor":
    """Without a look at inputs, which every candidate would have to gather anew."""
    from fastvlm_compile.quantize.choice import Choice
    from fastvlm_compile.quantize.methods import quantize_tensor
    from fastvlm_compile.quantize.scheme import Palette

    del name
    palette = isinstance(scheme, Palette)
    choice = Choice(scheme=scheme, method="clustering" if palette else "search")
    return quantize_tensor(weight.numpy(), choice, None)


def _probe(
    checkpoint: "Checkpoint", calibration: "Calibration", num_positions: int
) -> "tuple[Probe, list[Prompt]]":
    """The unchanged model is gone afterwards: a changed one takes its room."""
    from fastvlm_compile.quantize.sensitivity import Probe
    from reference.budget import FEW_RESIDENT_BYTES
    from reference.loading import build

    model = build(checkpoint, resident_bytes=FEW_RESIDENT_BYTES)
    prompts = _prompts(model, calibration, num_positions)
    return Probe(model, prompts), prompts


def _prompts(model: "FastVLM", calibration: "Calibration", num_positions: int) -> "list[Prompt]":
    """Cases with and without images in turn until there are enough positions; at least one."""
    import torch

    from fastvlm_compile.quantize.sensitivity import Prompt

    with_images = [case for case in calibration.cases if case.image_ids]
    without = [case for case in calibration.cases if not case.image_ids]
    order = [case for pair in zip(with_images, without, strict=False) for case in pair]
    order += with_images[len(without) :] + without[len(with_images) :]
    found: list[Prompt] = []
    left = num_positions
    for case in order:
        if left <= 0:
            break
        features = None
        left -= len(case.token_ids)
        if case.image_ids:
            pixels = [torch.from_numpy(calibration.pixel_values(each)) for each in case.image_ids]
            with torch.inference_mode():
                features = model.encode_image(torch.stack(pixels))
            left -= features.shape[0] * (features.shape[1] - 1)
        found.append(Prompt(input_ids=torch.tensor([case.token_ids]), image_features=features))
    return found
