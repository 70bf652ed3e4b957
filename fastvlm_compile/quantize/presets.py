"""The named variants, spelled out: which part of the model is stored how, where, and why.

A quantization is a set of rules with a name of its own. Targets whose rules are the same share one,
so they ship the same integers; where a runtime asks for another form the quantization is another,
and its name says whose it is.
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


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is done to the tensors of one role."""

    role: Role
    scheme: Quantized
    method: Method


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Rules under the name of the artifact that they make; a role without a rule is left alone."""

    name: str
    rules: tuple[Rule, ...]


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


_LANGUAGE: tuple[Role, ...] = ("language", "head")
_VISION: tuple[Role, ...] = ("vision_linear", "vision_pointwise", "vision_dense")

_INT8_CHANNEL = Affine(bits=8, block_size=0, symmetric=True)
_INT8_BLOCK = Affine(bits=8, block_size=64, symmetric=True)


def _rules(roles: tuple[Role, ...], scheme: Quantized, method: Method) -> tuple[Rule, ...]:
    return tuple(Rule(role=role, scheme=scheme, method=method) for role in roles)


_VISION_INT8 = _rules((*_VISION, "projector"), _INT8_CHANNEL, "search")
"""Convolution kernels of ONNX and the Neural Engine take 8 bits with a scale a channel."""


def _int4(name: str, block_size: int) -> Quantization:
    scheme = Affine(bits=4, block_size=block_size, symmetric=True)
    language = _rules(_LANGUAGE, scheme, "gptq")
    embedding = _rules(("embedding",), scheme, "search")  # rows are looked up: no inputs to weigh
    return Quantization(name=name, rules=(*language, *embedding, *_VISION_INT8))


def _mlx(name: str, bits: Literal[4, 8], group_size: int) -> Quantization:
    """MLX has no symmetric form, but its bias of -2^(bits-1) scales says the same."""
    scheme = Affine(bits=bits, block_size=group_size, symmetric=True)
    method: Method = "gptq" if bits == 4 else "search"
    language = _rules((*_LANGUAGE, "projector"), scheme, method)
    return Quantization(name=name, rules=(*language, *_rules(("embedding",), scheme, "search")))


def _palette(name: str, language_bits: Literal[4, 6]) -> Quantization:
    language = Palette(bits=language_bits, group_size=16)
    roles: tuple[Role, ...] = (*_LANGUAGE, "embedding")
    vision = Palette(bits=6, group_size=16)
    return Quantization(
        name=name,
        rules=(
            *_rules(roles, language, "clustering"),
            *_rules((*_VISION, "projector"), vision, "clustering"),
        ),
    )


_INT8 = Quantization(
    name="int8",
    rules=(
        *_rules((*_LANGUAGE, "embedding"), _INT8_BLOCK, "search"),
        *_VISION_INT8,
    ),
)
_INT8_CHANNELS = Quantization(
    name="int8-channel",
    rules=(
        *_rules((*_LANGUAGE, "embedding"), _INT8_CHANNEL, "search"),
        *_VISION_INT8,
    ),
)
_INT4 = _int4("int4", 32)
_INT4_FAST = _int4("int4-fast", 128)

PRESETS: Mapping[PresetName, Preset] = {
    "int8": Preset(
        quantizations={
            "onnx": _INT8,
            "coreml": _INT8_CHANNELS,
            "mlx": _mlx("int8-mlx", 8, 64),
        },
        compute_unit="neural_engine",
        why="half of float16 at no visible loss; one scale a channel, as the Neural Engine takes",
    ),
    "int4": Preset(
        quantizations={"onnx": _INT4, "coreml": _INT4, "mlx": _mlx("int4-mlx", 4, 64)},
        compute_unit="gpu",
        why="4 bits with a scale for 32 weights; the Neural Engine computes blocks wrong",
    ),
    "int4-fast": Preset(
        quantizations={
            "onnx": _INT4_FAST,
            "coreml": _INT4_FAST,
            "mlx": _mlx("int4-fast-mlx", 4, 128),
        },
        compute_unit="gpu",
        why="blocks of 128 decode nearly twice as fast on a CPU; calibration buys the error back",
    ),
    "lut4": Preset(
        quantizations={"coreml": _palette("lut4", 4)},
        compute_unit="neural_engine",
        why="tables are what the Neural Engine decompresses itself; the tower keeps 6 bits",
    ),
    "lut6": Preset(
        quantizations={"coreml": _palette("lut6", 6)},
        compute_unit="neural_engine",
        why="tables of 64 values: near float16 at 6 bits",
    ),
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
