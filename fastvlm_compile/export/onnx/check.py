"""What every written graph must pass before anyone uses it."""

from pathlib import Path

import onnx

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.contract import GraphContract, check_contract
from fastvlm_compile.export.onnx.graph import MAX_OPSET


def check_graph(path: Path, contract: GraphContract) -> None:
    """ONNX's own checker with strict shape inference, the contract, the opset, no metadata.

    Raises:
        ExportError: the graph is invalid, differs from its contract, or carries notes of the
            exporter, which hold paths of the machine that built it.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name}: not a valid graph: {error}") from error
    check_contract(path, contract)
    model = onnx.load(str(path), load_external_data=False)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > MAX_OPSET:
            raise ExportError(f"{path.name}: opset {opset.version} is past {MAX_OPSET}")
    noted = [part for part in _parts(model) if part.doc_string or part.metadata_props]
    if noted:
        raise ExportError(f"{path.name}: {len(noted)} parts carry notes of the exporter")


_Part = onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto


def _parts(model: onnx.ModelProto) -> list[_Part]:
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return [model, graph, *graph.node, *values, *graph.initializer]
