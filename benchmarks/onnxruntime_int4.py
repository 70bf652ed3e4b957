"""onnxruntime's own weight quantizers, and what the MatMulNBits node that they write means."""

import contextlib
import io
import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Method = Literal["DEFAULT", "RTN", "k_quant", "HQQ"]


class QuantizerFailedError(Exception):
    """onnxruntime's quantizer does not get through; the message is its own."""


@dataclass(frozen=True, kw_only=True)
class TheirTensor:
    """A weight as onnxruntime's quantizer leaves it: [O, I], and the bytes of its node's inputs."""

    weight: Floats
    size_bytes: int


def offers(method: Method, *, symmetric: bool) -> bool:
    """Whether a method has that symmetry: k_quant and HQQ always store zero points."""
    return not symmetric or method in ("DEFAULT", "RTN")


def quantize(weight: Floats, method: Method, *, block_size: int, symmetric: bool) -> TheirTensor:
    """Quantize [O, I] to 4 bits with one of onnxruntime's methods at its defaults.

    Raises:
        QuantizerFailedError: it raises, as RTN and k_quant do for an odd number of blocks.
    """
    from onnxruntime.quantization import matmul_nbits_quantizer as theirs

    for name in (theirs.logger.name, "neural_compressor"):
        logging.getLogger(name).setLevel(logging.WARNING)
    config = {
        "DEFAULT": lambda: theirs.DefaultWeightOnlyQuantConfig(
            block_size=block_size, is_symmetric=symmetric, bits=4
        ),
        "RTN": theirs.RTNWeightOnlyQuantConfig,
        "k_quant": theirs.KQuantWeightOnlyQuantConfig,
        "HQQ": lambda: theirs.HQQWeightOnlyQuantConfig(block_size=block_size, bits=4),
    }[method]()
    quantizer = theirs.MatMulNBitsQuantizer(
        matmul_model(weight), block_size=block_size, is_symmetric=symmetric, algo_config=config
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a progress bar
            quantizer.process()
    except ValueError as error:
        raise QuantizerFailedError(str(error)) from error
    return read_node(quantizer.model.model)


def matmul_model(weight: Floats) -> onnx.ModelProto:
    """`y = x @ weight.T` for x [N, I] and weight [O, I]."""
    outputs, inputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"], name="matmul")],
        "one_matmul",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T), "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def read_node(model: onnx.ModelProto) -> TheirTensor:
    """Dequantize a model's only MatMulNBits node (onnxruntime, docs/ContribOperators.md)."""
    (node,) = (node for node in model.graph.node if node.op_type == "MatMulNBits")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    arrays = [stored[name] for name in node.input[1:]]
    attributes = {item.name: item.i for item in node.attribute}
    outputs, inputs, block = (attributes[name] for name in ("N", "K", "block_size"))
    num_blocks = -(-inputs // block)
    codes = unpack_nibbles(arrays[0].reshape(outputs * num_blocks, -1), block)
    scales = arrays[1].astype(np.float32).reshape(-1, 1)
    zeros = np.full_like(scales, 8)
    if len(arrays) > 2 and arrays[2].dtype == np.uint8:
        packed = arrays[2].reshape(outputs, -1)
        zeros = unpack_nibbles(packed, num_blocks).astype(np.float32).reshape(-1, 1)
    elif len(arrays) > 2:  # HQQ's are no codes
        zeros = arrays[2].astype(np.float32).reshape(-1, 1)
    values = ((codes - zeros) * scales).reshape(outputs, -1)[:, :inputs]
    return TheirTensor(weight=values, size_bytes=sum(array.nbytes for array in arrays))


def unpack_nibbles(packed: Bytes, count: int) -> Bytes:
    """The first `count` codes of each row of bytes, low nibble first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)[:, :count]
