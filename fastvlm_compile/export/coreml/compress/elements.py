"""Element types as a program and as a weight file name them.

Source: `DataType` of `MIL.proto`, `BlobDataType.hpp` of MILBlob (both apple/coremltools).
"""

from dataclasses import dataclass

from fastvlm_compile.export.coreml.contract import Precision


@dataclass(frozen=True, kw_only=True)
class Element:
    """One element type.

    Attributes:
        mil: its name in `MIL.proto`.
        blob: its number in a weight file's records.
        bits: of one element; below 8 they are packed low bits first.
    """

    mil: str
    blob: int
    bits: int


_FLOATS: dict[Precision, Element] = {
    "float16": Element(mil="FLOAT16", blob=1, bits=16),
    "float32": Element(mil="FLOAT32", blob=2, bits=32),
}

_SIGNED = {
    8: Element(mil="INT8", blob=4, bits=8),
    4: Element(mil="INT4", blob=8, bits=4),
}

_UNSIGNED = {
    8: Element(mil="UINT8", blob=3, bits=8),
    1: Element(mil="UINT1", blob=9, bits=1),
    2: Element(mil="UINT2", blob=10, bits=2),
    4: Element(mil="UINT4", blob=11, bits=4),
    3: Element(mil="UINT3", blob=12, bits=3),
    6: Element(mil="UINT6", blob=13, bits=6),
}


def floating(precision: Precision) -> Element:
    """Of scales, tables and results."""
    return _FLOATS[precision]


def signed(bits: int) -> Element:
    """Two's complement of 4 or 8 bits."""
    return _SIGNED[bits]


def unsigned(bits: int) -> Element:
    """Of 1, 2, 3, 4, 6 or 8 bits."""
    return _UNSIGNED[bits]
