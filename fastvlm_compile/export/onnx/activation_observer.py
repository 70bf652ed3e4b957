"""Runs images through a float graph and keeps histograms of some of its inner values.

The graph itself takes the extremes and a sparse sample of each value, so one run an image gives
everything and no inner map ever leaves onnxruntime whole: for FastViTHD at 1024 pixels 160 MB
instead of 4 GB.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.activation_ranges import ActivationError, Histogram
from fastvlm_compile.export.onnx.files import save_graph
from fastvlm_compile.progress import Progress, silent

SAMPLED_POSITIONS = 256
"""Of each map of each image, evenly spread; all channels of each. Extremes are of the whole map."""

_PARTS = ("low", "high", "sample")
_STEM = "observed"


def observe(
    model: ir.Model,
    names: Sequence[str],
    images: Iterable[np.ndarray],
    folder: Path,
    progress: Progress,
) -> dict[str, Histogram]:
    """Histograms of the named values over all images.

    Args:
        model: a float graph with the input `pixel_values`; it is changed and written.
        names: of inner values, maps [B, C, H, W] or tokens [B, N, C] of known sizes.
        images: float32 [3, S, S] each.
        folder: for the graph; empty.
        progress: told of each image.

    Raises:
        ExportError: there is no image, an image has another shape, or a value is not finite.
    """
    add_observers(model, names)
    path = save_graph(model, folder, _STEM, silent).graph
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = False  # what is dropped goes back to the system
    options.enable_mem_pattern = False
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected = tuple(session.get_inputs()[0].shape[1:])
    wanted = [f"{name}/{part}" for name in names for part in _PARTS]
    histograms = {name: Histogram() for name in names}
    num_images = 0
    for image in images:
        progress(num_images, num_images + 1, f"activations of image {num_images}")
        if image.shape != expected:
            raise ExportError(f"a calibration image is {image.shape}, the graph takes {expected}")
        results = session.run(wanted, {"pixel_values": image[None]})
        for index, (name, histogram) in enumerate(histograms.items()):
            low, high, sample = results[len(_PARTS) * index : len(_PARTS) * (index + 1)]
            try:
                histogram.add(sample, float(low), float(high))
            except ActivationError as error:
                raise ExportError(f"image {num_images}, {name}: {error}") from error
        num_images += 1
    if num_images == 0:
        raise ExportError("there is no calibration image")
    return histograms


def add_observers(model: ir.Model, names: Sequence[str]) -> None:
    """Give the graph outputs `<name>/low`, `<name>/high` and `<name>/sample` for each name.

    The observers of late values come first: onnxruntime takes the nodes that nothing follows from
    the last to the first, and so observes each value as soon as it is there and can drop it (1.4 GB
    at 1024 pixels; 8.8 GB the other way round).
    """
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs}
    wanted = set(names)
    for value in [values[name] for name in reversed(values) if name in wanted]:
        name = value.name or ""
        for op, part in (("ReduceMin", "low"), ("ReduceMax", "high")):
            _output(graph, ir.node(op, [value], {"keepdims": 0}), f"{name}/{part}", [])
        _output(graph, _sample(graph, value), f"{name}/sample", None)


def _sample(graph: ir.Graph, value: ir.Value) -> ir.Node:
    """A Slice that takes every so manyth position, from the middle of the first stride on."""
    assert value.shape is not None, f"{value.name} has no shape"
    shape = value.shape.numpy() if value.shape.is_static() else (None, *value.shape[1:])
    axes = [2, 3] if len(shape) == 4 else [1]
    sizes = [int(shape[axis]) for axis in axes]  # type: ignore[arg-type]  # a symbol raises here
    positions = math.prod(sizes)
    wanted_stride = (positions / SAMPLED_POSITIONS) ** (1 / len(axes))
    strides = [max(1, min(size, math.ceil(wanted_stride - 1e-9))) for size in sizes]
    parts = {
        "starts": [stride // 2 for stride in strides],
        "ends": sizes,
        "axes": axes,
        "steps": strides,
    }
    inputs = [value]
    for part, numbers in parts.items():
        name = f"{value.name}/{part}"
        tensor = ir.tensor(np.array(numbers, dtype=np.int64), name=name)
        constant = ir.val(name, ir.DataType.INT64, [len(numbers)], const_value=tensor)
        graph.register_initializer(constant)
        inputs.append(constant)
    return ir.node("Slice", inputs)


def _output(graph: ir.Graph, node: ir.Node, name: str, shape: list[int] | None) -> None:
    node.name = name
    (value,) = node.outputs
    value.name = name
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = None if shape is None else ir.Shape(shape)
    graph.append(node)
    graph.outputs.append(value)
