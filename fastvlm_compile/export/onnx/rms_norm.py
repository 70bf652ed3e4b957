"""RMSNorm in the ops of opset 18, in the order in which ONNX Runtime knows it as one kernel."""

import onnx_ir as ir

from fastvlm_compile.export.onnx.graph import GraphBuilder


def rms_norm(graph: GraphBuilder, x: ir.Value, weight: ir.Value, *, eps: float) -> ir.Value:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, [..., D] -> [..., D].

    Pow, ReduceMean, Add, Sqrt, Div, Mul is the pattern that ONNX Runtime fuses to
    SimplifiedLayerNormalization; a reciprocal square root would stay six kernels.
    """
    square = graph.op("Pow", x, graph.float_scalar(2.0, "two"))
    mean = graph.op("ReduceMean", square, graph.ints(-1), keepdims=1)
    padded = graph.op("Add", mean, graph.float_scalar(eps, "rms_norm_eps"))
    rms = graph.op("Sqrt", padded)
    return graph.op("Mul", graph.op("Div", x, rms), weight)
