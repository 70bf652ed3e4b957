"""Weights of a graph that are read when they are written, never all at once.

A `StreamedTensor` stands in a graph where the weight belongs and knows how to read it from the
checkpoint's memory-mapped files. Writing asks it for `chunks`, so what a graph costs in memory is
one chunk, whatever the size of the model.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.weight_source import WeightSource

CHUNK_BYTES = 32 * 2**20
"""Written at once: large enough for the disk to be the limit, small enough not to be noticed."""


StreamedType = Literal["float32", "float16", "uint8"]

_IR_TYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "uint8": ir.DataType.UINT8,
}
_TORCH_TYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}


class StreamedTensor(ir.LazyTensor):
    """A tensor of a graph whose values are read on demand, anew for each use.

    Args:
        name: of the initializer.
        shape: of the tensor in the graph.
        read: returns the values in that shape and any memory layout (a transposed view of a mapped
            file will do): in any float type for a float tensor, in uint8 for a uint8 one.
        dtype: of the tensor in the graph.
    """

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        read: Callable[[], torch.Tensor],
        dtype: StreamedType = "float32",
    ) -> None:
        super().__init__(self._all, _IR_TYPES[dtype], ir.Shape(shape), name=name, cache=False)
        self._read = read
        self._values_dtype = _TORCH_TYPES[dtype]

    def _all(self) -> ir.TensorProtocol:
        """All values at once, for tensors that stay in the graph."""
        values = np.concatenate([chunk.reshape(-1) for chunk in self.chunks()])
        return ir.Tensor(values.reshape(self.shape.numpy()), name=self.name)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[np.ndarray]:
        """Contiguous pieces along the first axis, in order, in the tensor's type.

        Raises:
            ValueError: the reader returned another shape than it promised, whole numbers where
                floats are wanted or the other way round.
            ExportError: a value is beyond float16's range.
        """
        values = self._read()
        shape = self.shape.numpy()
        if tuple(values.shape) != shape:
            raise ValueError(f"{self.name}: read shape {tuple(values.shape)}, promised {shape}")
        if values.dtype.is_floating_point != self._values_dtype.is_floating_point:
            raise ValueError(f"{self.name}: read {values.dtype}, promised {self._values_dtype}")
        if not shape:
            values = values.reshape(1)
        row_bytes = self._values_dtype.itemsize * max(1, math.prod(shape[1:]))
        rows = max(1, chunk_bytes // row_bytes)
        for start in range(0, values.shape[0], rows):
            piece = values[start : start + rows].to(self._values_dtype).contiguous()
            if self._values_dtype == torch.float16 and not bool(torch.isfinite(piece).all()):
                raise ExportError(f"{self.name}: a value is beyond float16's range")
            yield piece.numpy()


def pieces(tensor: ir.TensorProtocol) -> Iterator[np.ndarray]:
    """The bytes of a tensor, in order, a streamed one's never all at once."""
    if isinstance(tensor, StreamedTensor):
        yield from tensor.chunks()
    else:
        yield np.frombuffer(tensor.tobytes(), dtype=np.uint8)


def stored(source: WeightSource, name: str) -> StreamedTensor:
    """The checkpoint's tensor as it is."""
    return StreamedTensor(name, source.tensors[name].shape, lambda: source.read(name))


def transposed(source: WeightSource, name: str, initializer: str) -> StreamedTensor:
    """A linear layer's [out, in] weight as the [in, out] that MatMul wants."""
    rows, columns = source.tensors[name].shape
    return StreamedTensor(initializer, (columns, rows), lambda: source.read(name).t())


def stacked_vectors(source: WeightSource, initializer: str, names: Sequence[str]) -> StreamedTensor:
    """Several vectors of the checkpoint as one, in order."""
    total = sum(source.tensors[name].shape[0] for name in names)
    return StreamedTensor(
        initializer, (total,), lambda: torch.cat([source.read(name).float() for name in names])
    )
