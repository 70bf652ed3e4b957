"""A quantized tensor as the constant expressions of iOS 18.

Source: coremltools' op definitions, `iOS18/compression.py`.

- `Affine`: `constexpr_blockwise_shift_scale`, weight = scale * (data - offset). A symmetric one is
  signed data without offset, as coremltools' own quantizer writes it; else data and offset are
  unsigned.
- `Palette`: `constexpr_lut_to_dense`, tables [G, 1, .., 2^bits, 1] over groups of output channels.
- `Palette` with a scale of each channel: the tables are scaled first, then looked up. The other
  order keeps one table a group, but coremltools turns it round for everything before iOS 26, where
  it was mended; so each channel gets a copy of its group's table.

Scales and tables are float16 in a float16 package and the same numbers, widened, in a float32 one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastvlm_compile.export.coreml.compress.blob_writer import Bytes
from fastvlm_compile.export.coreml.compress.elements import Element, floating, signed, unsigned
from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.quantize.packing import pack
from fastvlm_compile.quantize.scheme import (
    Affine,
    Palette,
    Quantized,
    SchemeError,
    Shape,
    symmetric_zero_point,
)
from fastvlm_compile.quantize.tensor import Halves, QuantizedTensor

BLOCKWISE = "constexpr_blockwise_shift_scale"
LUT = "constexpr_lut_to_dense"


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One stored array of a constant expression: packed bytes, and what they are."""

    element: Element
    shape: Shape
    raw: Bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Constexpr:
    """One op.

    Attributes:
        kind: of MIL.
        parts: its parameters that are stored.
        previous: its parameter that is the result of the op before it; empty for a first op.
        element, shape: of its result.
    """

    kind: str
    parts: Mapping[str, Part]
    previous: str
    element: Element
    shape: Shape


def check_encodable(name: str, scheme: Quantized, shape: Shape) -> None:
    """Refuse what Core ML's ops cannot say of a tensor.

    Raises:
        SchemeError: blocks or groups do not divide it; the message names it.
    """
    if isinstance(scheme, Palette):
        try:
            scheme.num_groups(shape)
        except SchemeError as error:
            raise SchemeError(f"{name}: {error.message}", hint=error.hint) from None
    elif scheme.block_size and shape[1] % scheme.block_size:
        raise SchemeError(
            f"{name}: blocks of {scheme.block_size} do not divide its {shape[1]} input channels, "
            "which Core ML asks for",
            hint="choose a block that divides them, or one scale an output channel (block 0)",
        )


def encode(tensor: QuantizedTensor, precision: Precision) -> tuple[Constexpr, ...]:
    """The ops whose last result is the weight; `check_encodable` has passed."""
    if isinstance(tensor.scheme, Affine):
        return (_affine(tensor, tensor.scheme, floating(precision)),)
    element = floating(precision)
    if tensor.scheme.channel_scale:
        return _scaled_palette(tensor, element)
    shape = (len(tensor.tables), *[1] * (len(tensor.shape) - 1), tensor.tables.shape[1], 1)
    tables = Part(element=element, shape=shape, raw=_float_bytes(tensor.tables, element))
    return (
        Constexpr(
            kind=LUT,
            parts={"indices": _indices(tensor), "lut": tables},
            previous="",
            element=element,
            shape=tensor.shape,
        ),
    )


def _affine(tensor: QuantizedTensor, scheme: Affine, element: Element) -> Constexpr:
    shape = (*tensor.scales.shape, *[1] * (len(tensor.shape) - 2))
    parts = {"scale": Part(element=element, shape=shape, raw=_float_bytes(tensor.scales, element))}
    if scheme.symmetric:
        # code - 2^(bits-1) in two's complement is the code with its highest bit turned.
        codes = tensor.codes ^ np.uint8(symmetric_zero_point(scheme.bits))
        stored = signed(scheme.bits)
    else:
        codes, stored = tensor.codes, unsigned(scheme.bits)
        offset = pack(tensor.zero_points, scheme.bits)
        parts["offset"] = Part(element=stored, shape=shape, raw=offset)
    parts["data"] = Part(element=stored, shape=tensor.shape, raw=pack(codes, scheme.bits))
    return Constexpr(kind=BLOCKWISE, parts=parts, previous="", element=element, shape=tensor.shape)


def _indices(tensor: QuantizedTensor) -> Part:
    bits = tensor.scheme.bits
    return Part(element=unsigned(bits), shape=tensor.shape, raw=pack(tensor.codes, bits))


def _scaled_palette(tensor: QuantizedTensor, element: Element) -> tuple[Constexpr, ...]:
    channels, ones = tensor.shape[0], [1] * (len(tensor.shape) - 1)
    tables = np.repeat(tensor.tables, channels // len(tensor.tables), axis=0)
    shape = (channels, *ones, tables.shape[1], 1)
    scaled = Constexpr(
        kind=BLOCKWISE,
        parts={
            "data": Part(element=element, shape=shape, raw=_float_bytes(tables, element)),
            "scale": Part(
                element=element,
                shape=(channels, *ones, 1, 1),
                raw=_float_bytes(tensor.scales, element),
            ),
        },
        previous="",
        element=element,
        shape=shape,
    )
    looked_up = Constexpr(
        kind=LUT,
        parts={"indices": _indices(tensor)},
        previous="lut",
        element=element,
        shape=tensor.shape,
    )
    return scaled, looked_up


def _float_bytes(values: Halves, element: Element) -> Bytes:
    wide = np.ascontiguousarray(values, dtype="<f2" if element.bits == 16 else "<f4")
    return wide.reshape(-1).view(np.uint8)
