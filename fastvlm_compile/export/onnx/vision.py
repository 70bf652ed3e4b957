"""`vision_encoder`: traced without weights, simplified without weights, bound by name at the end.

The traced form lives on the meta device, so tracing costs what the structure costs. Its parameters
are graph inputs until the structure is final; then each becomes an initializer under the same name
that reads the checkpoint when it is written.
"""

from collections.abc import Mapping

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.contract import BATCH
from fastvlm_compile.export.onnx.graph import IR_VERSION, PRODUCER
from fastvlm_compile.export.onnx.vision_module import TracedVision
from fastvlm_compile.export.onnx.weights import StreamedTensor
from reference.config import VisionConfig

VISION = "vision_encoder"


def meta_module(vision: VisionConfig, hidden_size: int) -> TracedVision:
    """The traced form without values."""
    with torch.device("meta"):
        return TracedVision(vision, hidden_size).eval()


def trace_vision(module: TracedVision, vision: VisionConfig, *, opset: int) -> onnx.ModelProto:
    """The exporter's graph: `pixel_values` first, then one input per parameter; no notes in it."""
    # A batch of one would be taken for a constant.
    pixels = torch.empty(2, 3, vision.image_size, vision.image_size, device="meta")
    program = torch.onnx.export(
        module,
        (pixels,),
        dynamo=True,
        optimize=False,  # the optimizer wants to see the weights
        opset_version=opset,
        input_names=["pixel_values"],
        output_names=["image_features"],
        dynamic_shapes=({0: BATCH},),
        verbose=False,
    )
    assert program is not None, "only the exporter to a file returns None"
    model = program.model
    ClearMetadataAndDocStringPass()(model)
    parameters = list(model.graph.initializers.values())
    expected = {name for name, _ in module.named_parameters()}
    if {value.name for value in parameters} != expected:
        raise ExportError("the exporter renamed or dropped parameters of the vision encoder")
    for value in parameters:
        del model.graph.initializers[value.name or ""]
        value.const_value = None
        model.graph.inputs.append(value)
    scale_last(model.graph)
    model.graph.name = VISION
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = PRODUCER, None
    return ir.to_proto(model)


def scale_last(graph: ir.Graph) -> None:
    """Write `parameter * x` as `x * parameter`: ONNX Runtime folds a scale after a convolution into
    its weights only when the scale is the second operand."""
    parameters = set(graph.inputs[1:])
    for node in graph:
        if node.op_type != "Mul":
            continue
        first, second = node.inputs
        if first in parameters and second not in parameters:
            node.replace_input_with(0, second)
            node.replace_input_with(1, first)


def bind(structure: onnx.ModelProto, weights: Mapping[str, StreamedTensor]) -> ir.Model:
    """Turn the inputs that are parameters into initializers which stream their values.

    Raises:
        ExportError: the graph's parameters are not exactly the weights, or a shape differs.
    """
    return bind_model(ir.from_proto(structure), weights)


def bind_model(model: ir.Model, weights: Mapping[str, StreamedTensor]) -> ir.Model:
    """`bind` for a structure that is open already; changes and returns it."""
    parameters = {value.name or "": value for value in list(model.graph.inputs)[1:]}
    if parameters.keys() != weights.keys():
        raise ExportError(f"parameters differ: {sorted(parameters.keys() ^ weights.keys())}")
    for name, value in parameters.items():
        tensor = weights[name]
        if value.shape != tensor.shape:
            raise ExportError(f"{name}: traced as {value.shape}, the checkpoint has {tensor.shape}")
        model.graph.inputs.remove(value)
        value.const_value = tensor
        model.graph.initializers[name] = value
    return model
