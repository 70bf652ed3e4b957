"""The arrays of quantized tensors as initializers that are read when they are written.

Every array is laid out in rows, one an output channel, so what several tensors of one scheme hold
can be stacked: the rows of a packed projection are those of its parts, byte for byte.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx_ir as ir
import torch

from fastvlm_compile.export.onnx.weights import StreamedTensor, StreamedType
from fastvlm_compile.quantize.packing import pack
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.tensor import Codes, Floats, QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights

_KEPT = 3
"""Tensors kept after reading, so that codes and scales of a packed projection cost one reading."""


@dataclass(frozen=True, kw_only=True)
class QuantizedReader:
    """Reads quantized tensors one at a time, the last few not again."""

    read: Callable[[str], QuantizedTensor]

    @classmethod
    def of(cls, quantized: QuantizedWeights) -> "QuantizedReader":
        """A reader of a quantized checkpoint."""
        return cls(read=lru_cache(maxsize=_KEPT)(quantized.read))

    def stacked(
        self,
        initializer: str,
        names: Sequence[str],
        shape: Sequence[int],
        arrange: Callable[[QuantizedTensor], np.ndarray],
        dtype: StreamedType,
    ) -> StreamedTensor:
        """The rows that `arrange` makes of each named tensor, under each other."""

        def rows() -> torch.Tensor:
            parts = [arrange(self.read(name)) for name in names]
            return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))

        return StreamedTensor(initializer, shape, rows, dtype)


def wide_scales(tensor: QuantizedTensor) -> Floats:
    """Scales [O, B] in float32: the same numbers, for kernels that take no other type."""
    return tensor.scales.astype(np.float32)


def packed_rows(codes: Codes, bits: int) -> Codes:
    """Codes [O, n] -> [O, ceil(n * bits / 8)], each row packed by itself, its end filled with 0."""
    per_byte = 8 // bits
    short = -codes.shape[1] % per_byte
    padded = np.pad(codes, ((0, 0), (0, short))) if short else codes
    return pack(padded, bits).reshape(codes.shape[0], -1)


def unpacked_rows(packed: Codes, bits: int, count: int) -> Codes:
    """The first `count` codes of every row of `packed_rows`."""
    if bits == 8:
        return packed[:, :count].copy()
    codes = np.empty((packed.shape[0], 2 * packed.shape[1]), dtype=np.uint8)
    codes[:, 0::2], codes[:, 1::2] = packed & 15, packed >> 4
    return np.ascontiguousarray(codes[:, :count])


def packed_zero_points(tensor: QuantizedTensor) -> Codes:
    """Zero points [O, B] -> [O, ceil(B * bits / 8)], as both of ONNX Runtime's ops read them."""
    return packed_rows(tensor.zero_points, tensor.scheme.bits)


def zero_point_bytes(scheme: Affine, num_blocks: int) -> int:
    """Bytes of a row of `packed_zero_points`."""
    return -(-num_blocks * scheme.bits // 8)


def constant(graph: ir.Graph, name: str) -> np.ndarray:
    """The values of a graph's initializer."""
    value = graph.initializers[name].const_value
    assert value is not None, f"{name} has no values"
    return value.numpy()
