"""Rows of a quantized embedding table, dequantized when they are asked for. numpy only.

The format is documented where it is written, `fastvlm_compile/export/coreml/compress/embedding.py`;
this reader is written apart from it, so that one cannot hide the other's mistake.
"""

from collections.abc import Mapping

import numpy as np

from validation.runtimes.base import Floats, Ids
from validation.runtimes.ml_program.bits import unpack

_AFFINE_BITS = (4, 8)
_PALETTE_BITS = (1, 2, 3, 4, 6, 8)

Arrays = Mapping[str, np.ndarray]


def quantized_rows(said: Mapping[str, object], parts: Arrays) -> "QuantizedRows":
    """The table that the metadata describes, over mapped arrays.

    Raises:
        ValueError, KeyError, TypeError: the arrays are not those of such a table.
    """
    rows, columns = _shape(said["shape"])
    bits = _number(said["bits"])
    expected: dict[str, tuple[int, ...]] = {"codes": (rows, columns * bits // 8)}
    if said["kind"] == "affine":
        block = _number(said["block_size"])
        blocks = -(-columns // block) if block else 1
        expected["scales"] = (rows, blocks)
        if not said["symmetric"]:
            expected["zero_points"] = (rows, -(-blocks * bits // 8))
        known: tuple[int, ...] = _AFFINE_BITS
    elif said["kind"] == "palette":
        group = _number(said["group_size"])
        expected["tables"] = (rows // group if group else 1, 2**bits)
        if said["channel_scale"]:
            expected["scales"] = (rows,)
        known = _PALETTE_BITS
        if group and rows % group:
            raise ValueError(f"groups of {group} rows do not divide {rows}")
    else:
        raise ValueError(f"tables of kind {said['kind']!r} are not known")
    found = {name: array.shape for name, array in parts.items()}
    if bits not in known or columns * bits % 8 or found != expected:
        raise ValueError(f"arrays {found} of {bits} bits where {expected} should be")
    for name, array in parts.items():
        if array.dtype != (np.uint8 if name in ("codes", "zero_points") else np.float16):
            raise ValueError(f"{name} is stored in {array.dtype}")
    return QuantizedRows((rows, columns), bits, _number(said.get("block_size", 0)), parts)


class QuantizedRows:
    """A table [V, H] of packed codes.

    Args:
        shape: V, H.
        bits: of a code.
        block_size: channels that share a scale; 0 where a row has one, or none.
        parts: `codes`, and of `scales`, `zero_points` and `tables` those that it has.
    """

    def __init__(self, shape: tuple[int, int], bits: int, block_size: int, parts: Arrays) -> None:
        self.shape = shape
        self._bits = bits
        self._block_size = block_size or shape[1]
        self._parts = parts

    def take(self, input_ids: Ids) -> Floats:
        """[...] -> float32 [..., H]; reads nothing of other rows."""
        ids = input_ids.reshape(-1)
        codes = self._unpacked("codes", ids, self.shape[1])
        make = self._looked_up if "tables" in self._parts else self._scaled
        values = make(codes, ids)
        return values.reshape(*input_ids.shape, self.shape[1])

    def _looked_up(self, codes: np.ndarray, ids: Ids) -> Floats:
        tables = self._parts["tables"]
        own = tables[ids * len(tables) // self.shape[0]].astype(np.float32)
        values: Floats = np.take_along_axis(own, codes.astype(np.intp), axis=1)
        if "scales" in self._parts:
            values = values * self._parts["scales"][ids].astype(np.float32)[:, None]
        return values

    def _scaled(self, codes: np.ndarray, ids: Ids) -> Floats:
        scales = self._parts["scales"][ids].astype(np.float32)
        zero: np.ndarray | float = 2.0 ** (self._bits - 1)
        if "zero_points" in self._parts:
            zero = self._wide(self._unpacked("zero_points", ids, scales.shape[1]))
        shifted: Floats = codes.astype(np.float32) - np.float32(zero)
        shifted *= self._wide(scales)
        return shifted

    def _wide(self, per_block: np.ndarray) -> np.ndarray:
        """[n, B] -> [n, H]."""
        return np.repeat(per_block, self._block_size, axis=1)[:, : self.shape[1]]

    def _unpacked(self, part: str, ids: Ids, count: int) -> np.ndarray:
        """Rows of packed integers, one a byte: [n, count]."""
        packed = np.asarray(self._parts[part][ids])
        per_row = packed.shape[1] * 8 // self._bits  # with what fills the last byte
        flat = unpack(packed.reshape(-1), self._bits, len(ids) * per_row)
        return flat.reshape(len(ids), per_row)[:, :count]


def _shape(raw: object) -> tuple[int, int]:
    if not isinstance(raw, list) or len(raw) != 2:
        raise TypeError(f"two sizes are expected, not {raw!r}")
    return _number(raw[0]), _number(raw[1])


def _number(raw: object) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 0:
        raise TypeError(f"a whole number is expected, not {raw!r}")
    return raw
