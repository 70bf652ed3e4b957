"""`vision_encoder` with weights stored in float16: see `half.py` for what that is good for."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import onnx_ir as ir
import torch

from fastvlm_compile.export.onnx.check import check_graph
from fastvlm_compile.export.onnx.contract import vision_contract
from fastvlm_compile.export.onnx.export import VisionGraphConfig
from fastvlm_compile.export.onnx.files import SavedGraph, save_graph
from fastvlm_compile.export.onnx.graph import check_opset
from fastvlm_compile.export.onnx.simplify import simplify
from fastvlm_compile.export.onnx.variants import variant_suffix
from fastvlm_compile.export.onnx.vision import VISION, bind, meta_module, trace_vision
from fastvlm_compile.export.onnx.vision_module import bind_vision
from fastvlm_compile.export.onnx.weights import StreamedTensor
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress

_STEPS = 3


def export_half_vision(
    config: VisionGraphConfig,
    source: WeightSource,
    out: Path,
    progress: Progress,
    *,
    variant: str = "fp16",
) -> SavedGraph:
    """Write `vision_encoder_fp16.onnx`, its kernels and matrices stored in float16, and check it.

    Raises:
        ExportError: a weight is beyond float16's range.
    """
    check_opset(config.opset)
    suffix = variant_suffix(variant)
    progress(0, _STEPS, "tracing the vision encoder")
    module = meta_module(config.vision, config.hidden_size)
    structure = simplify(trace_vision(module, config.vision, opset=config.opset))
    progress(1, _STEPS, "writing")
    weights = bind_vision(module, source)
    model = bind(structure, weights)
    store_half(model.graph, weights)

    def inner(done: int, total: int, what: str) -> None:
        progress(1, _STEPS, f"{what} ({done}/{total})")

    saved = save_graph(model, out, f"{VISION}{suffix}", inner)
    progress(2, _STEPS, "checking")
    check_graph(saved.graph, vision_contract(config.vision, config.hidden_size))
    progress(_STEPS, _STEPS, "float16 vision encoder written")
    return saved


def store_half(graph: ir.Graph, weights: Mapping[str, StreamedTensor]) -> None:
    """Put float16 constants behind a Cast in place of the weights of convolutions and matrices.

    Norms, biases and layer scales stay float32: they are few.
    """
    for node in list(graph):
        weight = node.inputs[1] if node.op_type in ("Conv", "MatMul") else None
        if weight is None or (name := weight.name or "") not in weights:
            continue
        full = weights[name]
        half = StreamedTensor(name, full.shape.numpy(), partial(_values, full), "float16")
        stored = ir.val(name, ir.DataType.FLOAT16, full.shape, const_value=half)
        cast = ir.node(
            "Cast",
            [stored],
            {"to": ir.DataType.FLOAT.value},
            outputs=[ir.val(f"{name}_float32")],
            name=f"{name}_float32",
        )
        graph.insert_before(node, cast)
        node.replace_input_with(1, cast.outputs[0])
        del graph.initializers[name]
        graph.register_initializer(stored)


def _values(tensor: StreamedTensor) -> torch.Tensor:
    return torch.from_numpy(tensor.numpy())
