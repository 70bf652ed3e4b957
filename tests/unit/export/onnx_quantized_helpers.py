"""Quantized tensors for the tests of ONNX encoders: integers from a seed, no quantizer involved."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch

from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.quantize.scheme import Affine, Quantized
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import (
    QuantizedEntry,
    QuantizedWeights,
    open_quantized,
    write_index,
    write_tensor,
)
from reference.checkpoint.tensors import Checkpoint

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def random_tensor(scheme: Affine, shape: tuple[int, int], seed: int = 0) -> QuantizedTensor:
    """Every code equally likely, scales of both signs, no two blocks alike."""
    random = np.random.default_rng(seed)
    size = (shape[0], scheme.num_blocks(shape))
    largest = 0.2 / 2**scheme.bits
    scales = random.uniform(largest / 2, largest, size) * random.choice([-1, 1], size)
    middle = 1 << (scheme.bits - 1)
    zero_points = random.integers(middle - 3, middle + 4, size).astype(np.uint8)
    return QuantizedTensor(
        scheme=scheme,
        codes=random.integers(0, 1 << scheme.bits, shape).astype(np.uint8),
        scales=scales.astype(np.float16),
        zero_points=np.empty(0, dtype=np.uint8) if scheme.symmetric else zero_points,
        tables=np.empty(0, dtype=np.float16),
    )


def write_quantized(folder: Path, tensors: Mapping[str, QuantizedTensor]) -> QuantizedWeights:
    """A quantized checkpoint of these tensors."""
    folder.mkdir(parents=True)
    entries = {}
    for name, tensor in tensors.items():
        write_tensor(folder, name, tensor)
        entries[name] = QuantizedEntry(
            scheme=tensor.scheme,
            shape=tensor.shape,
            method="random",
            relative_error=0.0,
            size_bytes=tensor.size_bytes,
        )
    write_index(folder, entries)
    return open_quantized(folder)


def unread(entries: Mapping[str, tuple[Quantized, tuple[int, ...]]]) -> QuantizedWeights:
    """An index without files, for what must be refused before anything is read."""
    return QuantizedWeights(
        folders={name: Path("nowhere") for name in entries},
        entries={
            name: QuantizedEntry(
                scheme=scheme, shape=shape, method="none", relative_error=0.0, size_bytes=0
            )
            for name, (scheme, shape) in entries.items()
        },
    )


def quantize_language(
    checkpoint: Checkpoint, folder: Path, scheme: Affine, *, but: Mapping[str, Affine] | None = None
) -> QuantizedWeights:
    """Random integers for all linears, the embedding and the head; `but` those named otherwise."""
    but = {} if but is None else but
    names = ["model.embed_tokens.weight"]
    if not checkpoint.tied:
        names.append("lm_head.weight")
    names += [
        name
        for name in checkpoint.tensors
        if name.startswith("model.layers.") and name.removesuffix(".weight").endswith(LINEARS)
    ]
    tensors = {}
    for seed, name in enumerate(sorted(names)):
        rows, columns = checkpoint.tensors[name].shape
        tensors[name] = random_tensor(but.get(name, scheme), (rows, columns), seed)
    return write_quantized(folder, tensors)


class Vectors:
    """A `WeightSource` of given tensors."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def read(self, name: str) -> torch.Tensor:
        return self.tensors[name]


def run_model(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model that is not written to disk."""
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def linear_graph(columns: int) -> tuple[GraphBuilder, ir.Value]:
    """A graph with one input `x` [rows, columns]."""
    graph = GraphBuilder("linear", opset=21)
    return graph, graph.input("x", ir.DataType.FLOAT, ("rows", columns))


def finish(graph: GraphBuilder, y: ir.Value, shape: Sequence[int | str]) -> ir.Model:
    """The graph with its one output."""
    graph.output(y, "y", ir.DataType.FLOAT, shape)
    return graph.model()
