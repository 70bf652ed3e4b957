"""The schemes that the variant `mixed` chooses from, for each target. Plain data."""

from collections.abc import Mapping
from typing import Literal

from fastvlm_compile.quantize.presets import Target
from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized

Family = Literal["affine", "palette"]

FAMILIES: Mapping[Target, Family] = {"onnx": "affine", "coreml": "palette", "mlx": "affine"}
"""Core ML's packages are for the Neural Engine, which takes tables."""


def _affine(bits: Literal[4, 8], block_size: int) -> Affine:
    return Affine(bits=bits, block_size=block_size, symmetric=True)


def _palette(bits: Literal[3, 4, 6, 8]) -> Palette:
    return Palette(bits=bits, group_size=16)


CANDIDATES: Mapping[Family, tuple[Quantized, ...]] = {
    "affine": (_affine(4, 128), _affine(4, 64), _affine(4, 32), _affine(8, 64)),
    "palette": (_palette(3), _palette(4), _palette(6), _palette(8)),
}
"""From small to large; every target of a family can hold all of it."""
