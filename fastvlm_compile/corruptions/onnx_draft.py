"""An ONNX graph in memory, its quantized weights open for changes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from fastvlm_compile.corruptions.stored import StoredTensor
from fastvlm_compile.export.onnx.read_back import JOINED
from fastvlm_compile.export.onnx.vision_module import canonical_weight
from fastvlm_compile.export.onnx.vision_qdq_graph import SCALE_SUFFIX

BLOCK_OPS = {"MatMulNBits": (1, 2, 3), "GatherBlockQuantized": (0, 2, 3)}
"""Places of codes, scales and zero points among the inputs of an op."""


class OnnxDraft:
    """A `Draft`; its program is the protobuf message, with the arrays in it.

    Args:
        path: of the graph; external data is read, and written into the graph.
    """

    def __init__(self, path: Path) -> None:
        self.program: Any = onnx.load(str(path))
        self._initializers = {each.name: each for each in self.program.graph.initializer}
        self._arrays: dict[str, np.ndarray] = {}
        self.tensors: Mapping[str, StoredTensor] = {each.label: each for each in self._find()}

    def array(self, name: str) -> np.ndarray:
        """An initializer's values; what is written to them is written to the file."""
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._initializers[name]).copy()
        return self._arrays[name]

    def add(self, name: str, values: np.ndarray) -> None:
        """A further initializer."""
        self._initializers[name] = self.program.graph.initializer.add()
        self._arrays[name] = values

    def write(self, path: Path) -> None:
        """See `Draft`."""
        for name, array in self._arrays.items():
            self._initializers[name].CopyFrom(numpy_helper.from_array(array, name))
        path.write_bytes(self.program.SerializeToString())

    def _find(self) -> Iterator[StoredTensor]:
        for node in self.program.graph.node:
            if node.op_type in BLOCK_OPS:
                yield self._blocks(node)
        for name, each in self._initializers.items():
            if (
                each.data_type == onnx.TensorProto.INT8
                and name + SCALE_SUFFIX in self._initializers
            ):
                yield StoredTensor(
                    label=name,
                    names=(canonical_weight(name),),
                    bits=8,
                    codes=self.array(name).reshape(-1).view(np.uint8),
                    scales=self.array(name + SCALE_SUFFIX).reshape(-1, 1),
                )

    def _blocks(self, node: onnx.NodeProto) -> StoredTensor:
        parts = [
            node.input[place] if place < len(node.input) else ""
            for place in BLOCK_OPS[node.op_type]
        ]
        codes, scales, zero_points = parts
        attributes = {each.name: each.i for each in node.attribute}
        stem = codes.removesuffix(".codes")
        prefix, dot, layer = stem.rpartition(".")
        names = tuple(f"{prefix}{dot}{part}.weight" for part in JOINED.get(layer, (layer,)))
        found = StoredTensor(
            label=stem,
            names=names,
            bits=attributes["bits"],
            codes=self.array(codes).reshape(-1),
            scales=self.array(scales),
            zero_points=self.array(zero_points).reshape(-1)
            if zero_points
            else np.empty(0, np.uint8),
        )
        assert found.scales.ndim == 2, "as our exporter writes them"
        return found
