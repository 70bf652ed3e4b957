"""What the tests of quantized vision graphs share: rounded weights and graph surgery."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from export_helpers import Graph, vision_config

from fastvlm_compile.export.onnx.vision_layers import HELD, VISION_ROLES
from fastvlm_compile.export.onnx.vision_qdq import export_quantized_vision
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Affine, Shape
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import (
    QuantizedEntry,
    QuantizedWeights,
    open_quantized,
    write_index,
    write_tensor,
)
from reference.checkpoint.tensors import Checkpoint


@dataclass(frozen=True, kw_only=True)
class QdqCase:
    """A checkpoint, its weights as int8, and images [4, 3, S, S]; the last calibrates nothing."""

    checkpoint: Checkpoint
    quantized: QuantizedWeights
    images: np.ndarray
    graph: Path

    def export(self, images: np.ndarray, out: Path) -> Path:
        """The graph file calibrated on these images."""
        return export(self.checkpoint, self.quantized, images, out)


def export(
    checkpoint: Checkpoint, quantized: QuantizedWeights, images: np.ndarray, out: Path
) -> Path:
    """The quantized graph file of a checkpoint."""
    config = vision_config(checkpoint)
    saved = export_quantized_vision(
        config, checkpoint, quantized, out, silent, calibration_images=images
    )
    return saved.graph


def nearest(weight: np.ndarray) -> QuantizedTensor:
    """Rounded to nearest, written out here so that the tests need no quantizer."""
    rows = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scales = np.maximum(rows / 127, 1e-6).astype(np.float16)
    spread = scales.astype(np.float32).reshape(-1, *[1] * (weight.ndim - 1))
    codes = np.clip(np.rint(weight / spread), -127, 127) + 128
    return QuantizedTensor(
        scheme=HELD,
        codes=codes.astype(np.uint8),
        scales=scales.reshape(-1, 1),
        zero_points=np.empty(0, dtype=np.uint8),
        tables=np.empty(0, dtype=np.float16),
    )


def entry_of(shape: Shape, scheme: Affine = HELD) -> QuantizedEntry:
    """An entry of the index; only shape and scheme mean something."""
    return QuantizedEntry(
        scheme=scheme, shape=shape, method="nearest", relative_error=0.0, size_bytes=1
    )


def quantize_vision(checkpoint: Checkpoint, folder: Path) -> QuantizedWeights:
    """Every weight that a vision graph can hold as int8."""
    entries = {}
    for name, info in checkpoint.tensors.items():
        if role_of(name, info.shape) in VISION_ROLES:
            write_tensor(folder, name, nearest(checkpoint.read(name).float().numpy()))
            entries[name] = entry_of(info.shape)
    write_index(folder, entries)
    return open_quantized(folder)


def coarse_images(size: int) -> np.ndarray:
    """[4, 3, S, S] that differ in brightness and contrast, as images do."""
    coarse = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
    contrast = np.array([1.0, 0.5, 0.8, 0.3], dtype=np.float32).reshape(4, 1, 1, 1)
    pixels: np.ndarray = coarse.repeat(size // 8, axis=2).repeat(size // 8, axis=3) * contrast
    return pixels


def features(path: Path, images: np.ndarray) -> np.ndarray:
    """`image_features` [B, T, H], as everybody runs the graph."""
    return Graph.open(path).run({"pixel_values": images})["image_features"]


def features_as_written(path: Path, images: np.ndarray) -> np.ndarray:
    """`image_features` [B, T, H], node by node.

    Optimized, a MatMul whose weight alone is integers becomes a MatMulNBits, which rounds its
    activations after all.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (values,) = session.run(["image_features"], {"pixel_values": images})
    result: np.ndarray = values
    return result


def with_float_activations(path: Path, out: Path) -> Path:
    """The graph with every QuantizeLinear and the DequantizeLinear behind it taken out."""
    model = onnx.load(str(path))
    sources = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    around = {
        node.output[0]: sources[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in sources
    }
    kept = [n for n in model.graph.node if not {*n.output} & (sources.keys() | around.keys())]
    for node in kept:
        for index, name in enumerate(node.input):
            node.input[index] = around.get(name, name)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    onnx.save(model, str(out))
    return out


def optimized_ops(path: Path, folder: Path) -> Counter[str]:
    """What onnxruntime makes of a graph: nodes by type."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(str(folder / "optimized.onnx")).graph.node
    return Counter(node.op_type for node in nodes)
