"""How a linear layer is written into a graph: the seam where quantized encodings come in.

The decoder asks a `LinearEmitter` for each of its linears. `PlainLinear` writes MatMul and Add; an
encoder of quantized weights writes MatMulNBits for the layers it holds and passes the rest on.
"""

from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.weights import stored, transposed
from fastvlm_compile.export.weight_source import WeightSource


@dataclass(frozen=True, kw_only=True)
class LinearSpec:
    """One linear layer: y = x W^T + b."""

    name: str
    """Module path: `model.layers.0.self_attn.q_proj`."""
    weight: str
    """Canonical name of its [out, in] tensor (that of the embedding for a tied head)."""
    bias: str | None = None
    """Canonical name of its [out] tensor, where it has one."""


class LinearEmitter(Protocol):
    """Writes one linear layer."""

    def __call__(self, graph: GraphBuilder, x: ir.Value, linear: LinearSpec) -> ir.Value:
        """[..., in] -> [..., out]."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlainLinear:
    """MatMul with the transposed float32 weight, then Add where there is a bias.

    The weight is stored transposed because a Transpose node would be folded at load time, which
    costs a second copy of every weight in memory.
    """

    source: WeightSource

    def __call__(self, graph: GraphBuilder, x: ir.Value, linear: LinearSpec) -> ir.Value:
        """[..., in] -> [..., out]."""
        weight = transposed(self.source, linear.weight, f"{linear.name}.weight_transposed")
        y = graph.op("MatMul", x, graph.initializer(weight))
        if linear.bias is None:
            return y
        return graph.op("Add", y, graph.initializer(stored(self.source, linear.bias)))
