"""Which layers of a vision graph hold quantized weights, and how each of them is computed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from fastvlm_compile.export.errors import ExportError, UnsupportedExportError
from fastvlm_compile.export.onnx.vision_module import canonical_weight
from fastvlm_compile.export.onnx.weights import StreamedTensor
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Affine, describe
from fastvlm_compile.quantize.weights_file import QuantizedEntry, QuantizedWeights

HELD = Affine(bits=8, block_size=0, symmetric=True)
"""The one scheme of a quantized vision graph: what integer convolutions compute with."""

VISION_ROLES = frozenset({"projector", "vision_linear", "vision_pointwise", "vision_dense"})

Computed = Literal["convolution", "linear", "weight_only"]
"""`convolution`: integers in and out. `linear`: integers in, float32 out. `weight_only`: float32,
the weight turned into float32 when the graph is loaded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionLayer:
    """A Conv or MatMul of the simplified graph whose weight is quantized.

    Attributes:
        name: of the weight, canonical.
        node: Conv or MatMul.
        weight: the parameter.
        layer_scale: the Mul by a positive layer scale that alone follows it, if there is one.
    """

    name: str
    node: ir.Node
    weight: ir.Value
    layer_scale: ir.Node | None

    @property
    def computed(self) -> Computed:
        """The form that is fastest in onnxruntime.

        A dense kernel has few input channels: as an integer convolution the stem takes 1.9 times
        as long as in float32.
        """
        if self.node.op_type == "MatMul":
            return "linear"
        assert self.weight.shape is not None
        return "convolution" if math.prod(self.weight.shape.numpy()[2:]) == 1 else "weight_only"

    @property
    def input(self) -> ir.Value:
        """The activation that meets the weight."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """What comes out, scaled by the layer scale."""
        return (self.layer_scale or self.node).outputs[0]

    @property
    def observed(self) -> tuple[ir.Value, ...]:
        """The values that become integers."""
        if self.computed == "convolution":
            return (self.input, self.output)
        return (self.input,) if self.computed == "linear" else ()


def find_layers(
    graph: ir.Graph, quantized: QuantizedWeights, weights: Mapping[str, StreamedTensor]
) -> list[VisionLayer]:
    """The quantized layers of a simplified vision graph, in the order of computation.

    Args:
        graph: its inputs after the first are the parameters.
        quantized: names the weights.
        weights: values of the parameters, of which layer scales are read.

    Raises:
        UnsupportedExportError: a vision tensor is quantized in another way than integer
            convolutions can hold.
        ExportError: a quantized vision tensor is the weight of no layer, or of two.
    """
    wanted = vision_entries(quantized)
    parameters = set(graph.inputs[1:])
    layers = [
        _layer(node, name, weights)
        for node in graph
        if node.op_type in ("Conv", "MatMul") and node.inputs[1] in parameters
        if (name := canonical_weight(node.inputs[1].name or "")) in wanted
    ]
    names = [layer.name for layer in layers]
    if sorted(names) != sorted(wanted):
        raise ExportError(f"layers of these weights differ: {sorted(set(names) ^ set(wanted))}")
    return layers


def vision_entries(quantized: QuantizedWeights) -> dict[str, QuantizedEntry]:
    """The quantized tensors that a vision graph holds.

    Raises:
        UnsupportedExportError: one of them is quantized in a way that no vision graph can hold.
    """
    wanted = {}
    for name, entry in quantized.entries.items():
        role = role_of(name, entry.shape)
        if role == "vision_depthwise":
            raise UnsupportedExportError(
                f"{name}: a depthwise convolution cannot be quantized in ONNX",
                hint="leave depthwise convolutions out; as integers they take 3.6 times as long",
            )
        if role not in VISION_ROLES:
            continue
        if entry.scheme != HELD:
            raise UnsupportedExportError(
                f"{name}: {describe(entry.scheme)} is not for a vision encoder in ONNX",
                hint=f"give vision tensors and the projector the scheme {describe(HELD)}",
            )
        wanted[name] = entry
    return wanted


def _layer(node: ir.Node, name: str, weights: Mapping[str, StreamedTensor]) -> VisionLayer:
    weight = node.inputs[1]
    assert weight is not None
    users = list(node.outputs[0].consumers())
    alone = users[0] if node.op_type == "Conv" and len(users) == 1 else None
    scale = alone.inputs[1] if alone is not None and alone.op_type == "Mul" else None
    values = weights.get(scale.name or "") if scale is not None else None
    # Scales of integers must be positive: zero divides, and some runtimes refuse negative ones.
    positive = values is not None and bool((values.numpy() > 0).all())
    return VisionLayer(name=name, node=node, weight=weight, layer_scale=alone if positive else None)
