"""The stages that quantize: calibration, sensitivity, every part once, and its cost. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from fastvlm_compile.quantize.calibration_plan import CalibrationPlan
from fastvlm_compile.quantize.families import FAMILIES
from fastvlm_compile.quantize.presets import (
    PROJECTOR_INT8,
    VISION_INT8,
    VISION_LUT6,
    Part,
    PartRole,
    Target,
    preset_parts,
)
from fastvlm_compile.recipe import Quantization, Recipe
from fastvlm_compile.stage import Stage
from fastvlm_compile.stages.mixed import ChosenConfig, PolicyConfig, SensitivityConfig
from fastvlm_compile.stages.parity import ReferenceParityConfig
from fastvlm_compile.stages.quantize import config_of

CALIBRATION = "calibration"

_STAGES = "fastvlm_compile.stages"
_TORCH = ("torch", "numpy", "safetensors")
_QUANTIZE = (*_TORCH, "numba")


def quantized_stages(recipe: Recipe, quantization: Quantization) -> Iterator[Stage]:
    """Calibration, every part of every quantization once, and the reference with these weights."""
    yield _calibration(recipe, quantization)
    quantized = recipe.targets.quantized()
    mixed = [cast(Target, each.target) for each in quantized if each.variant == "mixed"]
    yield from _sensitivities(mixed, quantization)
    for name in dict.fromkeys(_MIXED_LANGUAGE[target] for target in mixed):
        yield from _mixed(name, quantization)
    parts = {
        part.name: part
        for each in quantized
        for part in (
            _MIXED_PARTS[each.target].values()
            if each.variant == "mixed"
            else preset_parts(
                each.target, each.variant, int4_block=quantization.int4_block
            ).values()
        )
    }
    for part in parts.values():
        calibration = {CALIBRATION: CALIBRATION} if part.calibrated else {}
        yield Stage(
            name=f"quantize.{part.name}",
            function=f"{_STAGES}.quantize:quantize",
            config=config_of(part.rules),
            inputs={"weights": "weights", **calibration},
            tools=_QUANTIZE,
            resumable=True,
        )
    measured = {each.quantization: each for each in reversed(recipe.targets.quantized())}
    for name, each in reversed(measured.items()):
        parts_by_role = parts_of(recipe, each.target, each.variant)
        yield Stage(
            name=f"parity.reference.{name}",
            function=f"{_STAGES}.parity:reference",
            config=ReferenceParityConfig(variant=name),
            inputs={
                "weights": "weights",
                "checkpoint": "checkpoint",
                "golden": "golden",
                **{f"quantized_{role}": part for role, part in parts_by_role.items()},
            },
            tools=(*_TORCH, "pillow", "tokenizers"),
            resumable=True,
        )


_MIXED_PARTS: Mapping[str, Mapping[PartRole, Part]] = {
    "onnx": {"vision": VISION_INT8},
    "coreml": {"vision": VISION_LUT6},  # tables, as all of the Neural Engine's
    "mlx": {"projector": PROJECTOR_INT8},
}
"""What `mixed` has beside the language model that was searched over."""

_MIXED_LANGUAGE: Mapping[Target, str] = {"onnx": "mixed", "coreml": "mixed-tables", "mlx": "mixed"}
"""ONNX and MLX spend the same bytes on a block, so one search serves both."""


def parts_of(recipe: Recipe, target: str, variant: str) -> dict[PartRole, str]:
    """The stage of each part of a quantized variant."""
    if variant != "mixed":
        assert recipe.quantization is not None
        block = recipe.quantization.int4_block
        parts = preset_parts(target, variant, int4_block=block)
        return {role: f"quantize.{part.name}" for role, part in parts.items()}
    others = {role: f"quantize.{part.name}" for role, part in _MIXED_PARTS[target].items()}
    return {**others, "language": f"quantize.{_MIXED_LANGUAGE[cast(Target, target)]}"}


def policy_of(target: str) -> str:
    """The stage that chose the bits of a target's `mixed`."""
    return f"policy.{_MIXED_LANGUAGE[cast(Target, target)]}"


def _calibration(recipe: Recipe, quantization: Quantization) -> Stage:
    image, asked = recipe.image, quantization.calibration
    return Stage(
        name=CALIBRATION,
        function=f"{_STAGES}.quantize:calibration",
        config=CalibrationPlan(
            image_size=image.size,
            fit=image.fit,
            image_position=image.position,
            scenes=asked.scenes,
            photographs=asked.photographs,
            prompts=asked.prompts,
        ),
        inputs={"checkpoint": "checkpoint"},
        tools=("numpy", "pillow", "tokenizers", "scikit-image", "safetensors"),
    )


def _mixed(name: str, quantization: Quantization) -> Iterator[Stage]:
    assert quantization.mixed_bits is not None  # the recipe is refused without it
    target = next(target for target, language in _MIXED_LANGUAGE.items() if language == name)
    inputs = {"weights": "weights", CALIBRATION: CALIBRATION}
    yield Stage(
        name=f"policy.{name}",
        function=f"{_STAGES}.mixed:policy",
        config=PolicyConfig(
            target=target,
            mixed_bits=quantization.mixed_bits,
            mixed_positions=quantization.mixed_positions,
        ),
        inputs={**inputs, "sensitivity": f"sensitivity.{FAMILIES[target]}"},
        tools=_QUANTIZE,
    )
    yield Stage(
        name=f"quantize.{name}",
        function=f"{_STAGES}.mixed:quantize",
        config=ChosenConfig(),
        inputs={**inputs, "policy": f"policy.{name}"},
        tools=_QUANTIZE,
        resumable=True,
    )


def _sensitivities(targets: Iterable[Target], quantization: Quantization) -> Iterator[Stage]:
    """One for all targets that choose from the same schemes."""
    for family in dict.fromkeys(FAMILIES[target] for target in targets):
        yield Stage(
            name=f"sensitivity.{family}",
            function=f"{_STAGES}.mixed:sensitivity",
            config=SensitivityConfig(family=family, mixed_positions=quantization.mixed_positions),
            inputs={"weights": "weights", CALIBRATION: CALIBRATION},
            tools=_QUANTIZE,
            resumable=True,
        )
