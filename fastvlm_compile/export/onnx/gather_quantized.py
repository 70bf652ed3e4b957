"""The embedding as ONNX Runtime's GatherBlockQuantized, and the decoder of what it holds.

Contrib operator GatherBlockQuantized, version 1, with uint8 data: rows [V, D * bits / 8], low bits
first; scales float32 [V, blocks]; zero points packed row by row, the middle code where there are
none. (With data of type uint4 the default is 0, and 8 bits do not exist.) Where the block divides
D these are the bytes of MatMulNBits, so that a tied head and the embedding can be one region of one
file.

The op dequantizes the rows it gathers, exactly as `QuantizedTensor.dequantize` does. For an id past
the vocabulary it gives a row of zeros, where Gather gives an error.
"""

import numpy as np
import onnx_ir as ir

from fastvlm_compile.export.errors import UnsupportedExportError
from fastvlm_compile.export.onnx.contract import BATCH, LENGTH
from fastvlm_compile.export.onnx.decoder import EMBEDDING_WEIGHT
from fastvlm_compile.export.onnx.embedding import EMBEDDING
from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.matmul_nbits import affine_of, narrow_scales
from fastvlm_compile.export.onnx.quantized_weights import (
    QuantizedReader,
    constant,
    packed_rows,
    packed_zero_points,
    unpacked_rows,
    wide_scales,
    zero_point_bytes,
)
from fastvlm_compile.export.onnx.residual import MICROSOFT
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.tensor import Codes, QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights


def build_quantized_embedding(quantized: QuantizedWeights, *, opset: int) -> ir.Model:
    """`input_ids` [B, L] -> `inputs_embeds` [B, L, D], weights unread.

    Raises:
        UnsupportedExportError: the embedding is not quantized, or in a way that the op cannot hold.
    """
    scheme, (vocab_size, hidden_size) = _held(quantized)
    blocks = scheme.num_blocks((vocab_size, hidden_size))
    graph = GraphBuilder(EMBEDDING, opset=opset)
    input_ids = graph.input("input_ids", ir.DataType.INT64, (BATCH, LENGTH))
    stem, reader = EMBEDDING_WEIGHT.removesuffix(".weight"), QuantizedReader.of(quantized)
    names = [EMBEDDING_WEIGHT]
    width = hidden_size * scheme.bits // 8
    codes = reader.stacked(f"{stem}.codes", names, (vocab_size, width), pack_rows, "uint8")
    scales = reader.stacked(f"{stem}.scales", names, (vocab_size, blocks), wide_scales, "float32")
    inputs = [graph.initializer(codes), input_ids, graph.initializer(scales)]
    if not scheme.symmetric:
        shape = (vocab_size, zero_point_bytes(scheme, blocks))
        zero_points = reader.stacked(
            f"{stem}.zero_points", names, shape, packed_zero_points, "uint8"
        )
        inputs.append(graph.initializer(zero_points))
    rows = graph.op(
        "GatherBlockQuantized",
        *inputs,
        domain=MICROSOFT,
        bits=scheme.bits,
        block_size=scheme.block_size,
        gather_axis=0,
        quantize_axis=1,
    )
    graph.output(rows, "inputs_embeds", ir.DataType.FLOAT, (BATCH, LENGTH, hidden_size))
    return graph.model()


def shares_bytes_with_head(quantized: QuantizedWeights) -> bool:
    """Whether a tied head's MatMulNBits stores the embedding in the same bytes.

    It does where the blocks divide the hidden size: MatMulNBits fills up the last block.
    """
    scheme, (_, hidden_size) = _held(quantized)
    return hidden_size % scheme.block_size == 0


def pack_rows(tensor: QuantizedTensor) -> Codes:
    """Codes [V, D] -> [V, D * bits / 8]."""
    return packed_rows(tensor.codes, tensor.scheme.bits)


def read_gather_quantized(graph: ir.Graph, node: ir.Node) -> QuantizedTensor:
    """The weight of a GatherBlockQuantized over uint8 data as it stands in a graph.

    Raises:
        ValueError: the scales are not float16 values, so no tensor of ours holds them.
    """
    names = [value.name if value is not None else None for value in node.inputs]
    data_name, scale_name = names[0], names[2]
    zero_name = names[3] if len(names) > 3 else None
    assert data_name is not None
    assert scale_name is not None
    bits, block = (node.attributes[name].as_int() for name in ("bits", "block_size"))
    assert bits in {4, 8}
    scheme = Affine(bits=4 if bits == 4 else 8, block_size=block, symmetric=zero_name is None)
    data, scales = constant(graph, data_name), constant(graph, scale_name)
    zero_points = np.empty(0, dtype=np.uint8)
    if zero_name is not None:
        zero_points = unpacked_rows(constant(graph, zero_name), bits, scales.shape[1])
    return QuantizedTensor(
        scheme=scheme,
        codes=unpacked_rows(data, bits, data.shape[1] * 8 // bits),
        scales=narrow_scales(scale_name, scales),
        zero_points=zero_points,
        tables=np.empty(0, dtype=np.float16),
    )


def _held(quantized: QuantizedWeights) -> tuple[Affine, tuple[int, int]]:
    """Scheme and shape of the embedding, if the op holds them."""
    if EMBEDDING_WEIGHT not in quantized.entries:
        raise UnsupportedExportError(
            f"{EMBEDDING_WEIGHT} is not quantized",
            hint="quantize it, or export the embedding in float16 or float32",
        )
    entry = quantized.entries[EMBEDDING_WEIGHT]
    scheme = affine_of(EMBEDDING_WEIGHT, entry.scheme)
    vocab_size, hidden_size = entry.shape
    if hidden_size * scheme.bits % 8 != 0:
        raise UnsupportedExportError(
            f"{EMBEDDING_WEIGHT}: GatherBlockQuantized cannot hold {scheme.bits}-bit rows of "
            f"{hidden_size}, which is no whole number of bytes",
            hint="use 8 bits for the embedding",
        )
    return scheme, (vocab_size, hidden_size)
