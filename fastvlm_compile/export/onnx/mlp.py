"""The decoder's gated feed-forward."""

import onnx_ir as ir

from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.linear import LinearEmitter, LinearJoiner, LinearSpec


def gated_mlp(
    graph: GraphBuilder,
    x: ir.Value,
    *,
    prefix: str,
    width: int,
    linear: LinearEmitter,
    join: LinearJoiner,
) -> ir.Value:
    """SwiGLU, down(silu(gate(x)) * up(x)): [B, L, D] -> [B, L, D], `width` channels between.

    SiLU is x * sigmoid(x), which ONNX Runtime knows as one kernel; opset 21 has no op for it.
    """

    def spec(layer: str) -> LinearSpec:
        return LinearSpec(name=f"{prefix}.{layer}", weight=f"{prefix}.{layer}.weight")

    def project(layer: str, value: ir.Value) -> ir.Value:
        with graph.scope(layer):
            return linear(graph, value, spec(layer))

    def silu(gate: ir.Value) -> ir.Value:
        return graph.op("Mul", gate, graph.op("Sigmoid", gate))

    with graph.scope("gate_up_proj"):
        joined = join(graph, x, f"{prefix}.gate_up_proj", [spec("gate_proj"), spec("up_proj")])
    if joined is None:
        activated = silu(project("gate_proj", x))
        return project("down_proj", graph.op("Mul", activated, project("up_proj", x)))
    halves = graph.ints(width, width)
    gate, up = graph.multi_op("Split", joined, halves, num_outputs=2, axis=-1)
    return project("down_proj", graph.op("Mul", silu(gate), up))
