"""Linears of integer weights as ONNX Runtime's MatMulNBits, packed here, and their decoder.

ONNX Runtime's own packer rounds too, takes 4 bits, and fails where a row has an odd number of
blocks. Here the integers exist already and are only put where the op looks for them (contrib
operator MatMulNBits, version 1): of N output and K input channels,

- B, uint8 [N, blocks, block size * bits / 8], low bits first, the last block filled up with codes
  of weight 0;
- scales, float32 [N, blocks]: float32 activations take no narrower ones, so the file holds the
  float16 values widened;
- zero points, uint8 [N, ceil(blocks * bits / 8)], packed row by row; a symmetric scheme has none,
  for the op's default is the middle code, ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from fastvlm_compile.export.errors import UnsupportedExportError
from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.linear import LinearEmitter, LinearSpec
from fastvlm_compile.export.onnx.quantized_weights import (
    QuantizedReader,
    constant,
    packed_rows,
    packed_zero_points,
    unpacked_rows,
    wide_scales,
    zero_point_bytes,
)
from fastvlm_compile.export.onnx.residual import MICROSOFT
from fastvlm_compile.export.onnx.weights import stacked_vectors
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.quantize.scheme import Affine, Quantized, describe
from fastvlm_compile.quantize.tensor import Codes, QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights

AccuracyLevel = Literal[0, 4]
"""0 computes in float32; 4 may round activations to 8 bits, block by block, which a CPU wants: its
8-bit kernel of level 0 is seventy times slower than that of level 4."""


def affine_of(name: str, scheme: Quantized) -> Affine:
    """The scheme, if ONNX Runtime's block-wise ops can hold it.

    Raises:
        UnsupportedExportError: it is a palette, or has one scale for a whole channel.
    """
    if isinstance(scheme, Affine) and scheme.block_size != 0:
        return scheme
    raise UnsupportedExportError(
        f"{name}: ONNX Runtime's block-wise ops cannot hold {describe(scheme)}",
        hint="quantize it with blocks of 16, 32, 64 or 128 input channels for ONNX",
    )


@dataclass(frozen=True, kw_only=True)
class NBitsLinear:
    """A `LinearEmitter` and `LinearJoiner` that writes what is quantized as MatMulNBits."""

    source: WeightSource
    """Biases."""
    quantized: QuantizedWeights
    reader: QuantizedReader
    other: LinearEmitter
    """Writes the layers that are not quantized."""
    accuracy_level: AccuracyLevel

    def __call__(self, graph: GraphBuilder, x: ir.Value, linear: LinearSpec) -> ir.Value:
        """[..., in] -> [..., out].

        Raises:
            UnsupportedExportError: the layer's scheme is none that MatMulNBits holds.
        """
        if linear.weight not in self.quantized.entries:
            return self.other(graph, x, linear)
        return self._emit(graph, x, linear.weight.removesuffix(".weight"), [linear])

    def join(
        self, graph: GraphBuilder, x: ir.Value, name: str, linears: Sequence[LinearSpec]
    ) -> ir.Value | None:
        """All of them as one, [..., in] -> [..., sum of outs]; None where their schemes differ."""
        entries = self.quantized.entries
        schemes = {
            entries[linear.weight].scheme if linear.weight in entries else None
            for linear in linears
        }
        if len(schemes) != 1 or None in schemes:
            return None
        return self._emit(graph, x, name, linears)

    def _emit(
        self, graph: GraphBuilder, x: ir.Value, stem: str, linears: Sequence[LinearSpec]
    ) -> ir.Value:
        names = [linear.weight for linear in linears]
        entry = self.quantized.entries[names[0]]
        scheme = affine_of(names[0], entry.scheme)
        rows = sum(self.quantized.entries[name].shape[0] for name in names)
        columns = entry.shape[1]
        shapes = array_shapes(scheme, rows, columns)

        codes = self.reader.stacked(f"{stem}.codes", names, shapes["codes"], pack_codes, "uint8")
        scales = self.reader.stacked(
            f"{stem}.scales", names, shapes["scales"], wide_scales, "float32"
        )
        inputs: list[ir.Value | None] = [x, graph.initializer(codes), graph.initializer(scales)]
        biases = [linear.bias for linear in linears if linear.bias is not None]
        assert len(biases) in (0, len(linears)), f"{stem}: some parts have a bias and some none"
        if not scheme.symmetric:
            zero_points = self.reader.stacked(
                f"{stem}.zero_points", names, shapes["zero_points"], packed_zero_points, "uint8"
            )
            inputs.append(graph.initializer(zero_points))
        if biases:
            bias = stacked_vectors(self.source, f"{stem}.bias", biases)
            inputs += [None] * (5 - len(inputs))
            inputs.append(graph.initializer(bias))
        return graph.op(
            "MatMulNBits",
            *inputs,
            domain=MICROSOFT,
            K=columns,
            N=rows,
            bits=scheme.bits,
            block_size=scheme.block_size,
            accuracy_level=self.accuracy_level,
        )


def array_shapes(scheme: Affine, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the op's constants for a weight [rows, columns]."""
    blocks = scheme.num_blocks((rows, columns))
    return {
        "codes": (rows, blocks, scheme.block_size * scheme.bits // 8),
        "scales": (rows, blocks),
        "zero_points": (rows, zero_point_bytes(scheme, blocks)),
    }


def pack_codes(tensor: QuantizedTensor) -> Codes:
    """Codes [O, I] -> [O, blocks, block size * bits / 8]."""
    scheme = tensor.scheme
    assert isinstance(scheme, Affine)
    rows, columns = tensor.shape
    short = -columns % scheme.block_size
    codes = tensor.codes
    if short:
        # Filled with the last block's zero point, so that a kernel that reads on multiplies by 0.
        fill = np.repeat(tensor.effective_zero_points()[:, -1:], short, axis=1)
        codes = np.concatenate([codes, fill], axis=1)
    return packed_rows(codes, scheme.bits).reshape(array_shapes(scheme, rows, columns)["codes"])


def read_matmul_nbits(graph: ir.Graph, node: ir.Node) -> QuantizedTensor:
    """The weight of a MatMulNBits as it stands in a graph, whoever packed it.

    Raises:
        ValueError: the scales are not float16 values, so no tensor of ours holds them.
    """
    names = [value.name if value is not None else None for value in node.inputs]
    packed, scale_name = names[1], names[2]
    zero_name = names[3] if len(names) > 3 else None
    assert packed is not None
    assert scale_name is not None
    bits, block, columns, rows = (
        node.attributes[name].as_int() for name in ("bits", "block_size", "K", "N")
    )
    assert bits in {4, 8}
    scheme = Affine(bits=4 if bits == 4 else 8, block_size=block, symmetric=zero_name is None)
    blocks = scheme.num_blocks((rows, columns))
    codes = unpacked_rows(constant(graph, packed).reshape(rows, -1), bits, columns)
    zero_points = np.empty(0, dtype=np.uint8)
    if zero_name is not None:
        zero_points = unpacked_rows(constant(graph, zero_name).reshape(rows, -1), bits, blocks)
    return QuantizedTensor(
        scheme=scheme,
        codes=codes,
        scales=narrow_scales(scale_name, constant(graph, scale_name).reshape(rows, blocks)),
        zero_points=zero_points,
        tables=np.empty(0, dtype=np.float16),
    )


def narrow_scales(name: str, scales: np.ndarray) -> np.ndarray:
    """Float32 scales that are float16 values, as float16.

    Raises:
        ValueError: they are none.
    """
    narrow: np.ndarray = scales.astype(np.float16)
    if not np.array_equal(narrow.astype(np.float32), scales):
        raise ValueError(f"{name}: scales that float16 does not hold")
    return narrow
