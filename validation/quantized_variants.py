"""Which variants are quantized, and how: names alone."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QuantizedVariant:
    """A variant of a target and the quantization that it encodes."""

    target: str
    variant: str
    quantization: str
