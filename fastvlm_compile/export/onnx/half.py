"""float16 as storage: half the bytes on disk and on the wire, float32 where it is computed.

A weight is a float16 constant behind a Cast. ONNX Runtime's CPU folds the Cast when it loads the
graph, so a CPU computes exactly what it would with a float32 file of the rounded weights; a GPU
that has float16 kernels may do better. Norms and biases, a thousandth of the bytes, stay float32.

The decoder around these weights is the fused one: a graph for GPUs and browsers wants
GroupQueryAttention most, and one fused form is less to prove than two.
"""

from dataclasses import dataclass

import onnx_ir as ir

from fastvlm_compile.export.onnx.contract import BATCH, LENGTH
from fastvlm_compile.export.onnx.decoder import EMBEDDING_WEIGHT
from fastvlm_compile.export.onnx.embedding import EMBEDDING
from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.linear import LinearSpec
from fastvlm_compile.export.onnx.weights import StreamedTensor, stored
from fastvlm_compile.export.weight_source import WeightSource

_FLOAT32 = ir.DataType.FLOAT.value


@dataclass(frozen=True, kw_only=True)
class HalfLinear:
    """A `LinearEmitter`: MatMul with the transposed weight, which is stored in float16."""

    source: WeightSource

    def __call__(self, graph: GraphBuilder, x: ir.Value, linear: LinearSpec) -> ir.Value:
        """[..., in] -> [..., out]."""
        rows, columns = self.source.tensors[linear.weight].shape
        weight = StreamedTensor(
            f"{linear.name}.weight_transposed",
            (columns, rows),
            lambda: self.source.read(linear.weight).t(),
            "float16",
        )
        y = graph.op("MatMul", x, graph.op("Cast", graph.initializer(weight), to=_FLOAT32))
        if linear.bias is None:
            return y
        return graph.op("Add", y, graph.initializer(stored(self.source, linear.bias)))


def build_half_embedding(source: WeightSource, *, opset: int) -> ir.Model:
    """`input_ids` [B, L] -> `inputs_embeds` [B, L, D], weights unread.

    The Cast stands behind the Gather, so that the table stays float16 in memory too.
    """
    graph = GraphBuilder(EMBEDDING, opset=opset)
    shape = source.tensors[EMBEDDING_WEIGHT].shape
    input_ids = graph.input("input_ids", ir.DataType.INT64, (BATCH, LENGTH))
    table = StreamedTensor(
        EMBEDDING_WEIGHT, shape, lambda: source.read(EMBEDDING_WEIGHT), "float16"
    )
    rows = graph.op("Gather", graph.initializer(table), input_ids, axis=0)
    embeds = graph.op("Cast", rows, to=_FLOAT32)
    graph.output(embeds, "inputs_embeds", ir.DataType.FLOAT, (BATCH, LENGTH, shape[1]))
    return graph.model()
