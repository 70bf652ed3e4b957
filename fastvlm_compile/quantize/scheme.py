"""How a tensor may be stored, as data. No arrays here: plans and recipes import this.

A weight is [out, in] or, of a convolution, [out, in, height, width]. What shares a scale or a table
is always whole in its last two axes, so a convolution's kernel is never split.
"""

from dataclasses import dataclass
from typing import Literal

from reference.errors import UserError

Shape = tuple[int, ...]


class SchemeError(UserError):
    """A scheme cannot hold a tensor, or is none at all."""


@dataclass(frozen=True, kw_only=True)
class Float:
    """Stored as it is, rounded to float16 or kept in float32."""

    dtype: Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Integers with a float16 scale: weight = (code - zero point) * scale.

    Attributes:
        bits: of a code.
        block_size: input channels that share a scale; 0 for all of an output channel's.
        symmetric: the zero point is 2^(bits-1) everywhere, and not stored.
    """

    bits: Literal[4, 8]
    block_size: int
    symmetric: bool

    def __post_init__(self) -> None:
        if self.block_size != 0 and self.block_size not in (16, 32, 64, 128):
            raise SchemeError(
                f"block size {self.block_size} is not supported",
                hint="give 16, 32, 64, 128, or 0 for one scale an output channel",
            )

    def num_blocks(self, shape: Shape) -> int:
        """Scales of one output channel; the last block may be short."""
        return 1 if self.block_size == 0 else -(-shape[1] // self.block_size)


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Indices into tables of float16 values: weight = table[group][code] (* scale of its channel).

    Attributes:
        bits: of an index; a table has 2^bits values.
        group_size: output channels that share a table; 0 for one table a tensor.
        channel_scale: whether each output channel has a float16 scale of its own besides.
    """

    bits: Literal[1, 2, 3, 4, 6, 8]
    group_size: int
    channel_scale: bool = False

    def __post_init__(self) -> None:
        if self.group_size < 0:
            raise SchemeError(
                f"a group of {self.group_size} channels", hint="give 0 for one table a tensor"
            )

    def num_groups(self, shape: Shape) -> int:
        """Tables of a tensor.

        Raises:
            SchemeError: the groups do not divide the channels, which no runtime can hold.
        """
        if self.group_size == 0:
            return 1
        if shape[0] % self.group_size != 0:
            raise SchemeError(
                f"groups of {self.group_size} channels do not divide {shape[0]} channels",
                hint="choose a group that divides them, or 0 for one table a tensor",
            )
        return shape[0] // self.group_size


Quantized = Affine | Palette
Scheme = Float | Affine | Palette


def check_scheme(scheme: Quantized, shape: Shape) -> None:
    """Refuse what cannot hold a tensor of this shape.

    Raises:
        SchemeError: it is not a matrix or a convolution's weight, it is empty, or its groups do not
            divide its channels.
    """
    if len(shape) not in (2, 3, 4) or 0 in shape:
        raise SchemeError(
            f"a tensor of shape {list(shape)} cannot be quantized",
            hint="matrices and convolutions can; keep others in float16 or float32",
        )
    if isinstance(scheme, Palette):
        scheme.num_groups(shape)


def code_range(bits: int) -> int:
    """Largest code."""
    return (1 << bits) - 1


def symmetric_zero_point(bits: int) -> int:
    """The zero point of a symmetric scheme: codes are unsigned, so it stands in their middle."""
    return 1 << (bits - 1)


def describe(scheme: Scheme) -> str:
    """Short and exact: `int4 block 32 symmetric`, `lut4 group 16`, `float16`."""
    if isinstance(scheme, Float):
        return scheme.dtype
    if isinstance(scheme, Affine):
        block = f"block {scheme.block_size}" if scheme.block_size else "per channel"
        return f"int{scheme.bits} {block} {'symmetric' if scheme.symmetric else 'asymmetric'}"
    group = f"group {scheme.group_size}" if scheme.group_size else "per tensor"
    return f"lut{scheme.bits} {group}{' channel scale' if scheme.channel_scale else ''}"
