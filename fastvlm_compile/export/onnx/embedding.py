"""`embed_tokens`: token ids to embeddings, one Gather."""

import onnx_ir as ir

from fastvlm_compile.export.onnx.contract import BATCH, LENGTH
from fastvlm_compile.export.onnx.decoder import EMBEDDING_WEIGHT
from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.weights import stored
from fastvlm_compile.export.weight_source import WeightSource

EMBEDDING = "embed_tokens"


def build_embedding(source: WeightSource, *, opset: int) -> ir.Model:
    """`input_ids` [B, L] -> `inputs_embeds` [B, L, D], weights unread."""
    graph = GraphBuilder(EMBEDDING, opset=opset)
    _, hidden_size = source.tensors[EMBEDDING_WEIGHT].shape
    input_ids = graph.input("input_ids", ir.DataType.INT64, (BATCH, LENGTH))
    table = graph.initializer(stored(source, EMBEDDING_WEIGHT))
    rows = graph.op("Gather", table, input_ids, axis=0)
    graph.output(rows, "inputs_embeds", ir.DataType.FLOAT, (BATCH, LENGTH, hidden_size))
    return graph.model()
