"""A quantized tensor as its bytes lie in a file, open for changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.packing import pack, unpack

Bytes = npt.NDArray[np.uint8]


def _no_bytes() -> Bytes:
    return np.empty(0, dtype=np.uint8)


def _no_table() -> np.ndarray:
    return np.empty((0, 0), dtype=np.float16)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredTensor:
    """O output channels, B blocks of each, G tables. Writing to an array changes the file's draft.

    Attributes:
        label: what the file calls it.
        names: canonical names of the tensors whose rows it holds, in order.
        first_row: of those rows, where the file holds a part of them.
        bits: of a code.
        codes: packed, all bytes in a row.
        scales: [O, B], float16 or float32; empty where there are none.
        zero_points: packed, all bytes in a row; empty where there are none.
        tables: [G, K], float16 or float32; empty where there are none.
        biases: as `scales`, MLX's alone.
    """

    label: str
    names: tuple[str, ...]
    bits: int
    codes: Bytes
    first_row: int = 0
    scales: np.ndarray = field(default_factory=_no_table)
    zero_points: Bytes = field(default_factory=_no_bytes)
    tables: np.ndarray = field(default_factory=_no_table)
    biases: np.ndarray = field(default_factory=_no_table)


class Draft(Protocol):
    """A file, or a package, in memory."""

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """By label."""
        ...

    @property
    def program(self) -> Any:
        """What refers to the arrays: protobuf messages, or a table of JSON."""
        ...

    def write(self, path: Path) -> None:
        """Write it, with all changes, beside the intact one's other parts."""
        ...


def unpacked(raw: Bytes, bits: int) -> Bytes:
    """The codes in packed bytes, one a byte, with what fills the last one."""
    return unpack(raw, bits, raw.size * 8 // bits)


def repack(raw: Bytes, codes: Bytes, bits: int) -> None:
    """Put codes back into the bytes that they came from."""
    raw[...] = pack(codes, bits)
