"""The residual stream of the decoder and its norms: the third seam, where a fused norm comes in.

A layer adds the output of a branch to the stream and normalizes the sum. Standard ops do this one
after the other; ONNX Runtime's SkipSimplifiedLayerNormalization does both in one pass over memory.
"""

from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.rms_norm import rms_norm

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own ops."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The residual stream [B, L, D], perhaps as two terms whose sum nobody has needed yet."""

    value: ir.Value
    pending: ir.Value | None = None
    """The last branch's output, still to be added."""

    def last_position(self, graph: GraphBuilder) -> "Stream":
        """The stream of the last position alone, [B, 1, D]."""

        def last(value: ir.Value) -> ir.Value:
            return graph.op("Gather", value, graph.ints(-1), axis=1)

        pending = None if self.pending is None else last(self.pending)
        return Stream(value=last(self.value), pending=pending)


class ResidualEmitter(Protocol):
    """Writes the additions to the stream and the norms of it."""

    def add(self, graph: GraphBuilder, stream: Stream, branch: ir.Value) -> Stream:
        """The stream with the output of a branch added, now or with the next norm."""
        ...

    def norm(
        self, graph: GraphBuilder, stream: Stream, weight: ir.Value, *, eps: float
    ) -> tuple[ir.Value, Stream]:
        """RMSNorm of the stream [..., D], and the stream to go on with, nothing pending."""
        ...


class PlainResidual:
    """Add where the branch ends, then the norm in standard ops."""

    def add(self, graph: GraphBuilder, stream: Stream, branch: ir.Value) -> Stream:
        """The sum, at once."""
        assert stream.pending is None
        return Stream(value=graph.op("Add", stream.value, branch))

    def norm(
        self, graph: GraphBuilder, stream: Stream, weight: ir.Value, *, eps: float
    ) -> tuple[ir.Value, Stream]:
        """RMSNorm of the stream [..., D], and the stream as it was."""
        return rms_norm(graph, stream.value, weight, eps=eps), stream


class SkipResidual:
    """Addition and norm as one SkipSimplifiedLayerNormalization.

    The one norm with nothing to add, the first layer's, stays in standard ops, which ONNX Runtime
    makes one kernel of at load: its SimplifiedLayerNormalization lives in the standard domain
    without being standard, and ONNX's checker refuses it.
    """

    def add(self, graph: GraphBuilder, stream: Stream, branch: ir.Value) -> Stream:
        """The stream, with the branch left for the next norm to add."""
        del graph
        assert stream.pending is None
        return Stream(value=stream.value, pending=branch)

    def norm(
        self, graph: GraphBuilder, stream: Stream, weight: ir.Value, *, eps: float
    ) -> tuple[ir.Value, Stream]:
        """RMSNorm of the sum [..., D], and the sum."""
        if stream.pending is None:
            return rms_norm(graph, stream.value, weight, eps=eps), stream
        normed, _, _, total = graph.multi_op(
            "SkipSimplifiedLayerNormalization",
            stream.value,
            stream.pending,
            weight,
            num_outputs=4,
            domain=MICROSOFT,
            epsilon=eps,
        )
        return normed, Stream(value=total)
