"""The decoder's gated feed-forward."""

import onnx_ir as ir

from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.linear import LinearEmitter, LinearSpec


def gated_mlp(graph: GraphBuilder, x: ir.Value, *, prefix: str, linear: LinearEmitter) -> ir.Value:
    """SwiGLU, down(silu(gate(x)) * up(x)): [B, L, D] -> [B, L, D].

    SiLU is x * sigmoid(x), which ONNX Runtime knows as one kernel; opset 21 has no op for it.
    """

    def project(layer: str, value: ir.Value) -> ir.Value:
        name = f"{prefix}.{layer}"
        with graph.scope(layer):
            return linear(graph, value, LinearSpec(name=name, weight=f"{name}.weight"))

    gate = project("gate_proj", x)
    activated = graph.op("Mul", gate, graph.op("Sigmoid", gate))
    return project("down_proj", graph.op("Mul", activated, project("up_proj", x)))
