"""Weights of a graph that are read when they are written, never all at once.

A `StreamedTensor` stands in a graph where the weight belongs and knows how to read it from the
checkpoint's memory-mapped files. Writing asks it for `chunks`, so what a graph costs in memory is
one chunk, whatever the size of the model.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir
import torch

from fastvlm_compile.export.weight_source import WeightSource

CHUNK_BYTES = 32 * 2**20
"""Written at once: large enough for the disk to be the limit, small enough not to be noticed."""


class StreamedTensor(ir.LazyTensor):
    """A float32 tensor of a graph whose values are read on demand, anew for each use.

    Args:
        name: of the initializer.
        shape: of the tensor in the graph.
        read: returns the values in that shape, in any float type and any memory layout (a
            transposed view of a mapped file will do).
    """

    def __init__(self, name: str, shape: Sequence[int], read: Callable[[], torch.Tensor]) -> None:
        super().__init__(self._all, ir.DataType.FLOAT, ir.Shape(shape), name=name, cache=False)
        self._read = read

    def _all(self) -> ir.TensorProtocol:
        """All values at once, for tensors that stay in the graph."""
        values = np.concatenate([chunk.reshape(-1) for chunk in self.chunks()])
        return ir.Tensor(values.reshape(self.shape.numpy()), name=self.name)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[np.ndarray]:
        """Contiguous float32 pieces along the first axis, in order.

        Raises:
            ValueError: the reader returned another shape than it promised.
        """
        values = self._read()
        shape = self.shape.numpy()
        if tuple(values.shape) != shape:
            raise ValueError(f"{self.name}: read shape {tuple(values.shape)}, promised {shape}")
        if not shape:
            values = values.reshape(1)
        row_bytes = 4 * max(1, math.prod(shape[1:]))
        rows = max(1, chunk_bytes // row_bytes)
        for start in range(0, values.shape[0], rows):
            piece = values[start : start + rows].to(torch.float32).contiguous()
            yield piece.numpy()


def stored(source: WeightSource, name: str) -> StreamedTensor:
    """The checkpoint's tensor as it is."""
    return StreamedTensor(name, source.tensors[name].shape, lambda: source.read(name))


def transposed(source: WeightSource, name: str, initializer: str) -> StreamedTensor:
    """A linear layer's [out, in] weight as the [in, out] that MatMul wants."""
    rows, columns = source.tensors[name].shape
    return StreamedTensor(initializer, (columns, rows), lambda: source.read(name).t())
