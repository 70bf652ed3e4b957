"""A quantized tensor: codes, scales and tables as every target encodes them.

`dequantize` is the one definition of what the numbers mean. Encoders only rearrange them; what they
wrote, read back, must give the same `QuantizedTensor` bit for bit.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fastvlm_compile.quantize.scheme import (
    Affine,
    Palette,
    Quantized,
    Shape,
    check_scheme,
    code_range,
    symmetric_zero_point,
)

Codes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]


_VALUES_AT_ONCE = 2**20
"""That are dequantized at once: temporaries stay small, and in the caches."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTensor:
    """O output channels, B blocks of each, G tables of 2^bits values.

    Attributes:
        scheme: what the arrays mean.
        codes: unsigned, one byte each whatever their bits, in the weight's shape [O, I, ...].
        scales: [O, B] of `Affine`; [O] of a `Palette` with `channel_scale`; else empty.
        zero_points: [O, B] of an asymmetric `Affine`; else empty.
        tables: [G, 2^bits] of a `Palette`, each ascending; else empty.
    """

    scheme: Quantized
    codes: Codes
    scales: Halves
    zero_points: Codes
    tables: Halves

    def __post_init__(self) -> None:
        check_scheme(self.scheme, self.shape)
        expected = array_shapes(self.scheme, self.shape)
        for name, shape in expected.items():
            found = getattr(self, name)
            dtype = np.uint8 if name in ("codes", "zero_points") else np.float16
            assert found.shape == shape, f"{name} is {found.shape}, not {shape}"
            assert found.dtype == dtype, f"{name} is {found.dtype}"
        assert int(self.codes.max()) <= code_range(self.scheme.bits), "a code beyond its bits"

    @property
    def shape(self) -> Shape:
        """Of the weight."""
        return self.codes.shape

    @property
    def size_bytes(self) -> int:
        """Bytes with codes and zero points packed and scales and tables in float16."""
        bits = self.scheme.bits
        packed = -(-self.codes.size * bits // 8) + -(-self.zero_points.size * bits // 8)
        return packed + self.scales.nbytes + self.tables.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Of `size_bytes`."""
        return 8 * self.size_bytes / self.codes.size

    def rows(self, index: slice | npt.NDArray[np.int64]) -> "QuantizedTensor":
        """Some of the output channels: those of a slice, or of ids [n]."""
        scheme, tables = self.scheme, self.tables
        if isinstance(scheme, Palette) and scheme.group_size:
            whole = self._whole_groups(index, scheme.group_size)
            if whole is None:
                tables = tables[np.arange(len(self.codes))[index] // scheme.group_size]
                scheme = replace(scheme, group_size=1)
            else:
                tables = tables[whole]
        return QuantizedTensor(
            scheme=scheme,
            codes=self.codes[index],
            scales=self.scales[index] if self.scales.size else self.scales,
            zero_points=self.zero_points[index] if self.zero_points.size else self.zero_points,
            tables=tables,
        )

    def dequantize(self) -> Floats:
        """The weight in float32, [O, I, ...]. Every product is exact or rounded once."""
        values = np.empty(self.shape, dtype=np.float32)
        step = max(1, _VALUES_AT_ONCE // values[0].size)
        if isinstance(self.scheme, Palette) and self.scheme.group_size:
            step = -(-step // self.scheme.group_size) * self.scheme.group_size
        for start in range(0, len(values), step):
            rows = slice(start, start + step)
            values[rows] = self.rows(rows)._dequantized()
        return values

    def _whole_groups(self, index: slice | npt.NDArray[np.int64], size: int) -> slice | None:
        """The groups that a slice of the output channels is made of, if it cuts none."""
        if not isinstance(index, slice):
            return None
        start, stop, step = index.indices(len(self.codes))
        if step != 1 or start % size or stop % size:
            return None
        return slice(start // size, stop // size)

    def _dequantized(self) -> Floats:
        """All rows at once, with temporaries of several times their size."""
        if isinstance(self.scheme, Affine):
            return dequantize_affine(
                self.codes, self.scales, self.effective_zero_points(), self.scheme
            )
        values = np.empty(self.shape, dtype=np.float32)
        groups = self.codes.reshape(len(self.tables), -1)
        found = values.reshape(groups.shape)
        for number, table in enumerate(self.tables.astype(np.float32)):
            # No code is beyond its table; only where it need not look does numpy write in place.
            np.take(table, groups[number], out=found[number], mode="clip")
        if self.scheme.channel_scale:
            values *= per_channel(self.scales.astype(np.float32), values.ndim)
        return values

    def effective_zero_points(self) -> Codes:
        """[O, B] of an `Affine`, stored or not."""
        assert isinstance(self.scheme, Affine)
        if not self.scheme.symmetric:
            return self.zero_points
        return np.full(self.scales.shape, symmetric_zero_point(self.scheme.bits), dtype=np.uint8)


def dequantize_affine(codes: Codes, scales: Halves, zero_points: Codes, scheme: Affine) -> Floats:
    """Codes [O, I, ...] with scales and zero points [O, B] -> float32 [O, I, ...]."""
    # Differences of codes have 9 bits, scales 11: the product is exact in float32's 24.
    values = codes.astype(np.float32)
    block = scheme.block_size or codes.shape[1]
    count = codes.shape[1] // block
    _scale(values[:, : count * block], scales[:, :count], zero_points[:, :count])
    if count < scales.shape[1]:  # the last block is a short one
        _scale(values[:, count * block :], scales[:, count:], zero_points[:, count:])
    return values


def _scale(values: Floats, scales: Halves, zero_points: Codes) -> None:
    """Turn codes [O, I, ...] of equal blocks [O, B] into what they stand for, in place."""
    num_rows, num_blocks = scales.shape
    if not num_blocks:
        return
    by_block = values.view()
    by_block.shape = (num_rows, num_blocks, -1, *values.shape[2:])  # never a copy
    ones = [1] * (by_block.ndim - 2)
    by_block -= zero_points.astype(np.float32).reshape(num_rows, num_blocks, *ones)
    by_block *= scales.astype(np.float32).reshape(num_rows, num_blocks, *ones)


def per_channel(values: Floats, rank: int) -> Floats:
    """[O] -> [O, 1, ...] of this rank."""
    return values.reshape(-1, *[1] * (rank - 1))


def same_tensor(one: QuantizedTensor, other: QuantizedTensor) -> bool:
    """Whether two tensors are equal bit for bit."""
    return (
        one.scheme == other.scheme
        and np.array_equal(one.codes, other.codes)
        and np.array_equal(one.scales.view(np.uint16), other.scales.view(np.uint16))
        and np.array_equal(one.zero_points, other.zero_points)
        and np.array_equal(one.tables.view(np.uint16), other.tables.view(np.uint16))
    )


def array_shapes(scheme: Quantized, shape: Shape) -> dict[str, Shape]:
    """Shape of every array of a quantized tensor; absent ones are (0,)."""
    scales: Shape = (0,)
    zero_points: Shape = (0,)
    tables: Shape = (0,)
    if isinstance(scheme, Affine):
        scales = (shape[0], scheme.num_blocks(shape))
        zero_points = (0,) if scheme.symmetric else scales
    elif isinstance(scheme, Palette):
        scales = (shape[0],) if scheme.channel_scale else (0,)
        tables = (scheme.num_groups(shape), 2**scheme.bits)
    return {"codes": shape, "scales": scales, "zero_points": zero_points, "tables": tables}


def nothing(dtype: type[np.uint8] | type[np.float16]) -> npt.NDArray[np.generic]:
    """The array that stands where a scheme has none."""
    return np.empty(0, dtype=dtype)
