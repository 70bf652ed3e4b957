"""Writes QuantizeLinear and DequantizeLinear into a vision graph so that onnxruntime fuses them.

- A pointwise convolution stands between integers: DequantizeLinear, Conv, QuantizeLinear become one
  QLinearConv. Its bias stays the checkpoint's float32; onnxruntime turns it into integers itself.
- A linear layer takes integers and returns float32: DequantizeLinear, MatMul become one
  MatMulIntegerToFloat.
- A weight that meets no integers is a Cast and a Mul, constants that onnxruntime folds when it
  loads the graph. It does not fold DequantizeLinear, and a convolution whose weight is no constant
  is a slow one.

A layer scale is multiplied into the scales and the bias of the convolution before it, by nodes that
are folded as well: at no cost when the graph runs, while the file holds the scales as they were
quantized.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fastvlm_compile.export.onnx.activation_ranges import ActivationRange
from fastvlm_compile.export.onnx.vision_layers import HELD, VisionLayer
from fastvlm_compile.quantize.scheme import symmetric_zero_point
from fastvlm_compile.quantize.tensor import QuantizedTensor

SCALE_SUFFIX = "_scale"

Read = Callable[[str], QuantizedTensor]


@dataclass(frozen=True, kw_only=True)
class LayerRanges:
    """Of the activations of one layer; None where one stays float32.

    Without a range of its input a layer has integers only as its stored weight.
    """

    input: ActivationRange | None
    output: ActivationRange | None


def quantize_layer(graph: ir.Graph, layer: VisionLayer, ranges: LayerRanges, read: Read) -> None:
    """Replace the parameter of a layer by integers, and stand the layer among them."""
    rewriter = _Rewriter(graph=graph, layer=layer, read=read)
    if ranges.input is None:
        layer.node.replace_input_with(1, rewriter.cast_weight())
        return
    axis = 0 if layer.node.op_type == "Conv" else 1
    layer.node.replace_input_with(0, rewriter.through_integers(layer.input, ranges.input, "input"))
    layer.node.replace_input_with(1, rewriter.integer_weight(axis=axis))
    if layer.layer_scale is not None:
        rewriter.drop_layer_scale()
    if ranges.output is not None:
        rewriter.quantize_output(ranges.output)


@dataclass(frozen=True, kw_only=True)
class _Rewriter:
    graph: ir.Graph
    layer: VisionLayer
    read: Read

    @property
    def _stem(self) -> str:
        return self.layer.weight.name or ""

    def through_integers(self, value: ir.Value, found: ActivationRange, side: str) -> ir.Value:
        """The value rounded to its range, as nodes before the layer."""
        nodes = self._quantize_nodes(value, found, side)
        self.graph.insert_before(self.layer.node, nodes)
        return nodes[-1].outputs[0]

    def quantize_output(self, found: ActivationRange) -> None:
        """Round what comes out to its range, for all who use it."""
        value = self.layer.node.outputs[0]
        users = list(value.uses())
        nodes = self._quantize_nodes(value, found, "output")
        self.graph.insert_after(self.layer.node, nodes)
        for user in users:
            user.node.replace_input_with(user.idx, nodes[-1].outputs[0])

    def integer_weight(self, *, axis: int) -> ir.Value:
        """The weight from int8 codes and float32 scales along `axis`."""
        codes = self._codes(transposed=axis == 1)
        scale: ir.Value = self._scale((self._channels,))
        factor = self._layer_scale_factor()
        if factor is not None:
            scale = self._before("Mul", [scale, factor], "scaled_scale")
            bias = self.layer.node.inputs[2]
            assert bias is not None
            self.layer.node.replace_input_with(2, self._before("Mul", [bias, factor], "bias"))
        return self._before("DequantizeLinear", [codes, scale], "dequantized", axis=axis)

    def cast_weight(self) -> ir.Value:
        """The weight in float32, from nodes that are folded when the graph is loaded."""
        rank = len(self.read(self.layer.name).shape)
        codes = self._codes(transposed=False)
        scale = self._scale((self._channels, *[1] * (rank - 1)))
        floats = self._before("Cast", [codes], "cast", to=ir.DataType.FLOAT.value)
        return self._before("Mul", [floats, scale], "dequantized")

    def drop_layer_scale(self) -> None:
        """Take out the Mul whose factor the weight's scales have taken up."""
        scaled = self.layer.layer_scale
        assert scaled is not None
        for user in list(scaled.outputs[0].uses()):
            user.node.replace_input_with(user.idx, self.layer.node.outputs[0])
        self.graph.remove(scaled, safe=True)

    @property
    def _channels(self) -> int:
        return self.read(self.layer.name).shape[0]

    def _layer_scale_factor(self) -> ir.Value | None:
        """[O], from the layer scale's [O, 1, 1]."""
        if self.layer.layer_scale is None:
            return None
        shape = self._initializer("layer_scale_shape", np.array([-1], dtype=np.int64))
        factor = self.layer.layer_scale.inputs[1]
        return self._before("Reshape", [factor, shape], "layer_scale")

    def _codes(self, *, transposed: bool) -> ir.Value:
        """The parameter as int8, read when it is written."""
        layer, read = self.layer, self.read
        shape = read(layer.name).shape

        def values() -> ir.Tensor[np.ndarray]:
            codes = signed(read(layer.name))
            return ir.Tensor(np.ascontiguousarray(codes.T if transposed else codes))

        shape = shape[::-1] if transposed else shape
        tensor = ir.LazyTensor(
            values, ir.DataType.INT8, ir.Shape(shape), name=self._stem, cache=False
        )
        self.graph.inputs.remove(layer.weight)
        codes = ir.val(self._stem, ir.DataType.INT8, shape, const_value=tensor)
        self.graph.register_initializer(codes)
        return codes

    def _scale(self, shape: tuple[int, ...]) -> ir.Value:
        scales = self.read(self.layer.name).scales.astype(np.float32).reshape(shape)
        return self._initializer(SCALE_SUFFIX.removeprefix("_"), scales)

    def _quantize_nodes(
        self, value: ir.Value, found: ActivationRange, side: str
    ) -> tuple[ir.Node, ir.Node]:
        scale = self._initializer(f"{side}_scale", np.array(found.scale, dtype=np.float32))
        zero = self._initializer(f"{side}_zero_point", np.array(found.zero_point, dtype=np.uint8))
        quantized = self._node("QuantizeLinear", [value, scale, zero], f"{side}_quantized")
        back = self._node(
            "DequantizeLinear", [quantized.outputs[0], scale, zero], f"{side}_dequantized"
        )
        return quantized, back

    def _initializer(self, part: str, values: np.ndarray) -> ir.Value:
        name = f"{self._stem}_{part}"
        tensor = ir.tensor(values, name=name)
        value = ir.val(name, tensor.dtype, values.shape, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def _before(
        self, op: str, inputs: list[ir.Value | None], part: str, **attributes: int
    ) -> ir.Value:
        node = self._node(op, inputs, part, **attributes)
        self.graph.insert_before(self.layer.node, node)
        return node.outputs[0]

    def _node(
        self, op: str, inputs: list[ir.Value | None], part: str, **attributes: int
    ) -> ir.Node:
        name = f"{self._stem}_{part}"
        return ir.node(op, inputs, attributes, outputs=[ir.val(name)], name=name)


def signed(tensor: QuantizedTensor) -> np.ndarray:
    """Codes as int8 around zero."""
    assert tensor.scheme == HELD
    return (tensor.codes.astype(np.int16) - symmetric_zero_point(HELD.bits)).astype(np.int8)
