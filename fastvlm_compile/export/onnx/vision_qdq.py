"""`vision_encoder` with int8 weights and, where it pays, integer arithmetic.

Every weight that is quantized is int8 in the file, bit for bit as it was quantized. Pointwise
convolutions and linear layers compute with integers; depthwise convolutions, norms and attention
stay float32, and so does the stem. Activations have fixed ranges from calibration images.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F

from fastvlm_compile.export.onnx.activation_observer import observe
from fastvlm_compile.export.onnx.activation_ranges import (
    MAX_LEVEL,
    Doubles,
    Histogram,
    Response,
    choose_range,
)
from fastvlm_compile.export.onnx.check import check_graph
from fastvlm_compile.export.onnx.check_pairs import check_activation_pairs
from fastvlm_compile.export.onnx.contract import vision_contract
from fastvlm_compile.export.onnx.export import VisionGraphConfig
from fastvlm_compile.export.onnx.files import SavedGraph, save_graph
from fastvlm_compile.export.onnx.graph import check_opset
from fastvlm_compile.export.onnx.quantized_weights import QuantizedReader
from fastvlm_compile.export.onnx.saturation import safe_level
from fastvlm_compile.export.onnx.simplify import simplify
from fastvlm_compile.export.onnx.variants import variant_suffix
from fastvlm_compile.export.onnx.vision import VISION, bind, bind_model, meta_module, trace_vision
from fastvlm_compile.export.onnx.vision_layers import VisionLayer, find_layers
from fastvlm_compile.export.onnx.vision_module import bind_vision
from fastvlm_compile.export.onnx.vision_qdq_graph import LayerRanges, quantize_layer, signed
from fastvlm_compile.export.onnx.vision_read import check_vision_integers
from fastvlm_compile.export.onnx.weights import StreamedTensor
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights

_STEPS = 5


def export_quantized_vision(
    config: VisionGraphConfig,
    source: WeightSource,
    quantized: QuantizedWeights,
    out: Path,
    progress: Progress,
    *,
    calibration_images: Iterable[np.ndarray],
    variant: str = "int8",
) -> SavedGraph:
    """Write `vision_encoder_<suffix>.onnx` and check that it holds what was quantized.

    Args:
        config: the structure; its image size is that of the images.
        source: the checkpoint; what is not quantized is read from here.
        quantized: int8, one scale an output channel, symmetric: tensors of the tower and of the
            projector. Other tensors in it are none of this graph's.
        out: where the graph goes.
        progress: told of tracing, each image, each weight.
        calibration_images: float32 [3, S, S] in 0..1 each, taken one at a time.
        variant: names the file.

    Raises:
        UnsupportedExportError: a vision tensor is quantized in a way that the graph cannot hold.
        ExportError: there is no image or one of another size, an activation is not finite, or the
            file, read again, does not hold these integers.
    """
    check_opset(config.opset)
    suffix = variant_suffix(variant)
    progress(0, _STEPS, "tracing the vision encoder")
    module = meta_module(config.vision, config.hidden_size)
    structure = simplify(trace_vision(module, config.vision, opset=config.opset))
    weights = bind_vision(module, source)
    model = ir.from_proto(structure)
    layers = find_layers(model.graph, quantized, weights)
    progress(1, _STEPS, "observing activations")
    names = sorted({value.name or "" for layer in layers for value in layer.observed})
    with tempfile.TemporaryDirectory(dir=out) as folder:
        floats = bind(structure, weights)
        seen = observe(floats, names, calibration_images, Path(folder), _within(progress, 1))
    progress(2, _STEPS, "choosing ranges")
    read = QuantizedReader.of(quantized).read
    for layer in layers:
        bias = _bias(layer, weights)
        ranges = layer_ranges(layer, seen, read(layer.name), bias)
        quantize_layer(model.graph, layer, ranges, read)
    progress(3, _STEPS, "writing")
    held = {layer.weight.name for layer in layers}
    bind_model(model, {name: tensor for name, tensor in weights.items() if name not in held})
    saved = save_graph(model, out, f"{VISION}{suffix}", _within(progress, 3))
    progress(4, _STEPS, "checking")
    check_graph(saved.graph, vision_contract(config.vision, config.hidden_size))
    check_vision_integers(saved.graph, quantized)
    check_activation_pairs(saved.graph)
    progress(_STEPS, _STEPS, "quantized vision encoder written")
    return saved


def layer_ranges(
    layer: VisionLayer,
    seen: Mapping[str, Histogram],
    tensor: QuantizedTensor,
    bias: np.ndarray | None,
) -> LayerRanges:
    """What the integers around a layer stand for.

    The input's codes stay below what the weights allow on any processor (see `saturation.py`); the
    output meets no weight, so its codes use all of uint8, and are chosen for what follows.

    Args:
        layer: where in the graph.
        seen: histograms of its observed values.
        tensor: its weight.
        bias: [O], of a convolution. One that does not fit into int32 keeps the layer float32.
    """
    if layer.computed == "weight_only":
        return LayerRanges(input=None, output=None)
    found = choose_range(seen[layer.input.name or ""], safe_level(signed(tensor)))
    if layer.computed == "linear":
        return LayerRanges(input=found, output=None)
    assert bias is not None
    if not fits_int32(bias, found.scale, tensor.scales):
        return LayerRanges(input=None, output=None)
    output = choose_range(seen[layer.output.name or ""], MAX_LEVEL, _response(layer.output))
    return LayerRanges(input=found, output=output)


def fits_int32(bias: np.ndarray, input_scale: np.float32, weight_scales: np.ndarray) -> bool:
    """Whether a bias can be added to integer sums, with as much room again for the sums.

    It cannot where a channel's weights are next to nothing: then its scale is, too.
    """
    steps = np.abs(bias.astype(np.float64)) / input_scale / weight_scales.reshape(-1)
    return bool((steps < 2**30).all())


def _bias(layer: VisionLayer, weights: Mapping[str, StreamedTensor]) -> np.ndarray | None:
    """[O] of a convolution; linear layers add theirs by a node of its own."""
    if layer.node.op_type != "Conv":
        return None
    value = layer.node.inputs[2]
    assert value is not None
    return weights[value.name or ""].numpy()


def _response(value: ir.Value) -> Response | None:
    """The function that alone follows a value, if it is one that flattens parts of its range."""
    users = list(value.consumers())
    return _RESPONSES.get(users[0].op_type) if len(users) == 1 else None


def _on_doubles(function: Callable[[torch.Tensor], torch.Tensor]) -> Response:
    def response(values: Doubles) -> Doubles:
        return function(torch.from_numpy(values)).numpy()

    return response


_RESPONSES: dict[str, Response] = {
    "Gelu": _on_doubles(F.gelu),
    "Relu": _on_doubles(F.relu),
    "Sigmoid": _on_doubles(torch.sigmoid),
}


def _within(progress: Progress, at: int) -> Progress:
    """Report the steps of one part without moving the whole."""

    def inner(done: int, total: int, what: str) -> None:
        del done, total
        progress(at, _STEPS, what)

    return inner
