"""How many bytes of weights a run of an ONNX graph has to read, from the graph itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_ROWS_ONLY = {("Gather", 0), ("GatherBlockQuantized", 0), ("GroupQueryAttention", 7)}
_ROWS_ONLY |= {("GatherBlockQuantized", 2), ("GatherBlockQuantized", 3)}
_ROWS_ONLY |= {("GroupQueryAttention", 8)}
"""Inputs of which a run reads some rows: tables of embeddings, cosines and sines."""


def weight_bytes(path: Path) -> int:
    """Bytes of all constants that every run reads whole, each counted once, as they are stored.

    Args:
        path: an `.onnx` file; external data is not read.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    whole = {
        name
        for node in graph.node
        for index, name in enumerate(node.input)
        if (node.op_type, index) not in _ROWS_ONLY
    }
    return sum(_size(tensor) for tensor in graph.initializer if tensor.name in whole)


def conv_and_matmul_operations(path: Path) -> int:
    """Operations of the convolutions and matrix products of a graph whose shapes can be inferred.

    Counted from the graph alone, to hold `operations` to it.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    shapes = dict(_shapes(graph))
    total = 0
    for node in graph.node:
        if node.op_type in ("Conv", "FusedConv"):
            total += _product(shapes[node.output[0]]) * _product(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += _product(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 2 * total


def _shapes(graph: "onnx.GraphProto") -> Iterator[tuple[str, tuple[int, ...]]]:
    for tensor in graph.initializer:
        yield tensor.name, tuple(tensor.dims)
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        # A free dimension is the batch: one image.
        yield value.name, tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in dims)


def _size(tensor: "onnx.TensorProto") -> int:
    import onnx

    count = _product(tuple(tensor.dims))
    if tensor.data_type in (onnx.TensorProto.UINT4, onnx.TensorProto.INT4):
        return -(-count // 2)
    width: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return count * width


def _product(dims: tuple[int, ...]) -> int:
    result = 1
    for dim in dims:
        result *= dim
    return result
