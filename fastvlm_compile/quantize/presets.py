"""The named variants, spelled out: which part of the model is stored how, where, and why.

A quantization has a part for the language model and mostly one for the vision tower, each a set of
rules with a name of its own. Variants and targets whose rules are the same share a part, so they
ship the same integers; where a runtime asks for another form the part's name says whose it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fastvlm_compile.quantize.choice import Choice, Method
from fastvlm_compile.quantize.roles import Role, role_of
from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized, SchemeError, Shape

Target = Literal["onnx", "coreml", "mlx"]
ComputeUnit = Literal["neural_engine", "gpu", "any"]
PresetName = Literal["int8", "int4", "int4-fast", "lut4", "lut6"]
PartRole = Literal["vision", "projector", "language"]
"""`language` is embedding, decoder and head. `vision` is the tower with the projector; `projector`
stands where a target quantizes that alone."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is done to the tensors of one role."""

    role: Role
    scheme: Quantized
    method: Method


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rules under the name of the artifact that they make; a role without a rule is left alone."""

    name: str
    rules: tuple[Rule, ...]

    @property
    def calibrated(self) -> bool:
        """Whether a method asks for activations."""
        return any(rule.method == "gptq" for rule in self.rules)


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What one variant of one target encodes, named as the reference with these weights is."""

    name: str
    parts: Mapping[PartRole, Part]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One variant.

    Attributes:
        quantizations: by target; a target that is missing cannot hold this variant.
        compute_unit: of Apple's that Core ML packages of this variant are made for.
        why: the reason for these schemes.
    """

    quantizations: Mapping[Target, Quantization]
    compute_unit: ComputeUnit
    why: str


_LINEARS: tuple[Role, ...] = ("language", "head")
_VISION: tuple[Role, ...] = ("vision_linear", "vision_pointwise", "vision_dense", "projector")


def _rules(roles: tuple[Role, ...], scheme: Quantized, method: Method) -> tuple[Rule, ...]:
    return tuple(Rule(role=role, scheme=scheme, method=method) for role in roles)


def _language(name: str, scheme: Affine, method: Method) -> Part:
    # Rows of the embedding are looked up: there are no inputs whose size could guide the rounding.
    embedding = _rules(("embedding",), scheme, "search")
    return Part(name=f"language-{name}", rules=(*_rules(_LINEARS, scheme, method), *embedding))


def _tables(bits: Literal[4, 6], roles: tuple[Role, ...]) -> tuple[Rule, ...]:
    return _rules(roles, Palette(bits=bits, group_size=16), "clustering")


def _affine(bits: Literal[4, 8], block_size: int) -> Affine:
    return Affine(bits=bits, block_size=block_size, symmetric=True)


VISION_INT8 = Part(name="vision-int8", rules=_rules(_VISION, _affine(8, 0), "search"))
"""Convolution kernels of ONNX and the Neural Engine take 8 bits with a scale a channel."""
VISION_LUT6 = Part(name="vision-lut6", rules=_tables(6, _VISION))

_INT8 = _language("int8", _affine(8, 64), "search")
_INT8_CHANNEL = _language("int8-channel", _affine(8, 0), "search")
_INT4 = _language("int4", _affine(4, 32), "gptq")
_INT4_GROUP64 = _language("int4-group64", _affine(4, 64), "gptq")
_INT4_FAST = _language("int4-fast", _affine(4, 128), "gptq")


def _projector(scheme: Affine) -> Part:
    name = f"projector-int{scheme.bits}-group{scheme.block_size}"
    return Part(name=name, rules=_rules(("projector",), scheme, "search"))


PROJECTOR_INT8 = _projector(_affine(8, 64))
"""For MLX, which quantizes the projector as Apple's app loads it, and leaves the tower alone."""


def _mlx(variant: str, language: Part, projector: Part) -> Quantization:
    """MLX has no symmetric form, but its bias of -2^(bits-1) scales says the same."""
    return Quantization(name=f"{variant}-mlx", parts={"projector": projector, "language": language})


def _with_tower(name: str, language: Part, vision: Part = VISION_INT8) -> Quantization:
    return Quantization(name=name, parts={"vision": vision, "language": language})


def _lut(bits: Literal[4, 6]) -> Quantization:
    language = Part(name=f"language-lut{bits}", rules=_tables(bits, (*_LINEARS, "embedding")))
    return _with_tower(f"lut{bits}", language, VISION_LUT6)


PRESETS: Mapping[PresetName, Preset] = {
    "int8": Preset(
        quantizations={
            "onnx": _with_tower("int8", _INT8),
            "coreml": _with_tower("int8-channel", _INT8_CHANNEL),
            "mlx": _mlx("int8", _INT8, PROJECTOR_INT8),
        },
        compute_unit="neural_engine",
        why="half of float16 at no visible loss; one scale a channel, as the Neural Engine takes",
    ),
    "int4": Preset(
        quantizations={
            "onnx": _with_tower("int4", _INT4),
            "coreml": _with_tower("int4", _INT4),
            "mlx": _mlx("int4", _INT4_GROUP64, _projector(_affine(4, 64))),
        },
        compute_unit="gpu",
        why="4 bits with a scale for a block; the Neural Engine computes blocks wrong",
    ),
    "int4-fast": Preset(
        quantizations={
            "onnx": _with_tower("int4-fast", _INT4_FAST),
            "coreml": _with_tower("int4-fast", _INT4_FAST),
            "mlx": _mlx("int4-fast", _INT4_FAST, _projector(_affine(4, 128))),
        },
        compute_unit="gpu",
        why="blocks of 128, which a CPU decodes faster; calibration buys the error back",
    ),
    "lut4": Preset(
        quantizations={"coreml": _lut(4)},
        compute_unit="neural_engine",
        why="tables are what the Neural Engine decompresses itself; the tower keeps 6 bits",
    ),
    "lut6": Preset(
        quantizations={"coreml": _lut(6)},
        compute_unit="neural_engine",
        why="tables of 64 values: near float16 at 6 bits",
    ),
}


def find_quantization(target: str, variant: str) -> Quantization | None:
    """What a variant of a target encodes; None where no preset has it."""
    return next(
        (
            quantization
            for name, preset in PRESETS.items()
            for holder, quantization in preset.quantizations.items()
            if (holder, name) == (target, variant)
        ),
        None,
    )


def preset_parts(
    target: str, variant: str, *, int4_block: Literal[32, 64]
) -> Mapping[PartRole, Part]:
    """What a target's variant is made of.

    Args:
        target, variant: one of the presets'.
        int4_block: of `int4` where the target leaves that open.
    """
    quantization = find_quantization(target, variant)
    assert quantization is not None, f"{target} has no preset {variant}"
    if int4_block == 32:
        return quantization.parts
    return {
        role: _INT4_GROUP64 if part == _INT4 else part for role, part in quantization.parts.items()
    }


def resolve(rules: tuple[Rule, ...], shapes: Mapping[str, Shape]) -> dict[str, Choice]:
    """What is done to each tensor, by canonical name; tensors without a rule are left out.

    Args:
        rules: at most one a role.
        shapes: of all tensors of a checkpoint.

    Raises:
        SchemeError: a scheme cannot hold a tensor; the message names it.
    """
    by_role = {rule.role: rule for rule in rules}
    assert len(by_role) == len(rules), "two rules for one role"
    choices = {}
    for name, shape in shapes.items():
        rule = by_role.get(role_of(name, shape))
        if rule is not None:
            check_holds(name, rule.scheme, shape)
            choices[name] = Choice(scheme=rule.scheme, method=rule.method)
    return choices


def check_holds(name: str, scheme: Quantized, shape: Shape) -> None:
    """Refuse a scheme whose groups or blocks do not divide a tensor.

    Raises:
        SchemeError: naming the tensor.
    """
    if isinstance(scheme, Palette):
        try:
            scheme.num_groups(shape)
        except SchemeError as error:
            raise SchemeError(f"{name}: {error.message}", hint=error.hint) from None
