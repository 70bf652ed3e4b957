"""What a decoder graph stores, the table of its embedding left out unless the head is the same."""

from math import prod
from pathlib import Path

import onnx

_GATHERS = ("Gather", "GatherBlockQuantized")
_ITEM_BITS = {
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.INT64: 64,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
}


def decoder_bytes(path: Path) -> int:
    """Bytes of all initializers but those that only a lookup of token ids reads.

    Raises:
        KeyError: an initializer has a type that is not expected here.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    ids = {value.name for value in graph.input if value.name == "input_ids"}
    looked_up, computed_with = set[str](), set[str]()
    for node in graph.node:
        is_embedding = node.op_type in _GATHERS and bool(ids & set(node.input))
        (looked_up if is_embedding else computed_with).update(node.input)
    return sum(
        -(-prod(tensor.dims) * _ITEM_BITS[tensor.data_type] // 8)
        for tensor in graph.initializer
        if tensor.name not in looked_up - computed_with
    )
