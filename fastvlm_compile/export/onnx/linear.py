"""How a linear layer is written into a graph: the seam where quantized encodings come in.

The decoder asks a `LinearEmitter` for each of its linears. `PlainLinear` writes MatMul and Add; an
encoder of quantized weights writes MatMulNBits for the layers it holds and passes the rest on.
"""

from collections.abc import Sequence
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


class LinearJoiner(Protocol):
    """Writes several linear layers of the same input as one, where their encoding allows it."""

    def __call__(
        self, graph: GraphBuilder, x: ir.Value, name: str, linears: Sequence[LinearSpec]
    ) -> ir.Value | None:
        """[..., in] -> [..., sum of outs], or None: then they are written one by one."""
        ...


def never_join(
    graph: GraphBuilder, x: ir.Value, name: str, linears: Sequence[LinearSpec]
) -> ir.Value | None:
    """The joiner of encodings that write every layer by itself."""
    del graph, x, name, linears
    return None


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
