"""Reads the integers of a quantized vision graph again: they must be those that were quantized."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.vision_layers import HELD, vision_entries
from fastvlm_compile.export.onnx.vision_module import canonical_weight
from fastvlm_compile.quantize.scheme import symmetric_zero_point
from fastvlm_compile.quantize.tensor import QuantizedTensor, same_tensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights


def read_vision_weights(path: Path) -> dict[str, QuantizedTensor]:
    """Every int8 weight of a graph file by its canonical name, decoded from how it is used.

    A weight is the int8 constant of a DequantizeLinear or of a Cast and a Mul; its scale is the
    other constant, behind the Mul by a layer scale if there is one.

    Raises:
        ExportError: an int8 constant is used in another way, has a zero point, or scales that are
            no float16 numbers.
    """
    graph = ir.load(path).graph
    codes = {
        name: value
        for name, value in graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype == ir.DataType.INT8
    }
    return {canonical_weight(name): _read(path, name, value) for name, value in codes.items()}


def check_vision_integers(path: Path, quantized: QuantizedWeights) -> None:
    """Compare every int8 weight of a graph file with its original.

    Raises:
        ExportError: codes or scales differ, or a tensor is missing or one too many.
    """
    _check_same(path, read_vision_weights(path), quantized)


def _check_same(
    path: Path, found: Mapping[str, QuantizedTensor], quantized: QuantizedWeights
) -> None:
    different = found.keys() ^ vision_entries(quantized).keys()
    if different:
        raise ExportError(f"{path.name}: int8 weights differ: {sorted(different)}")
    for name, tensor in found.items():
        if not same_tensor(tensor, quantized.read(name)):
            raise ExportError(f"{path.name}: {name} is not what was quantized")


def _read(path: Path, name: str, codes: ir.Value) -> QuantizedTensor:
    users = list(codes.consumers())
    if len(users) != 1 or users[0].op_type not in ("DequantizeLinear", "Cast"):
        raise ExportError(f"{path.name}: {name} is not the weight of one layer")
    values = _constant(path, codes)
    user = users[0]
    if user.op_type == "Cast":
        (product,) = user.outputs[0].consumers()
        scales, axis = _constant(path, product.inputs[1]), 0
        # Any other shape would scale along another axis.
        if product.op_type != "Mul" or scales.shape != (len(values), *[1] * (values.ndim - 1)):
            raise ExportError(f"{path.name}: {name} is not scaled by output channel")
    else:
        if len(user.inputs) != 2:
            raise ExportError(f"{path.name}: {name} has a zero point")
        scales = _constant(path, _unscaled(user.inputs[1]))
        axis = user.attributes.get_int("axis", 1)
    return _tensor(path, name, values, scales.reshape(-1), transposed=axis == 1)


def _tensor(
    path: Path, name: str, values: np.ndarray, scales: np.ndarray, *, transposed: bool
) -> QuantizedTensor:
    halves = scales.astype(np.float16)
    if not np.array_equal(halves.astype(np.float32), scales):
        raise ExportError(f"{path.name}: scales of {name} are no float16 numbers")
    rows = values.T if transposed else values
    if len(halves) != len(rows):
        raise ExportError(f"{path.name}: {name} has {len(halves)} scales for {len(rows)} channels")
    codes = (rows.astype(np.int16) + symmetric_zero_point(HELD.bits)).astype(np.uint8)
    return QuantizedTensor(
        scheme=HELD,
        codes=np.ascontiguousarray(codes),
        scales=halves.reshape(-1, 1),
        zero_points=np.empty(0, dtype=np.uint8),
        tables=np.empty(0, dtype=np.float16),
    )


def _unscaled(scale: ir.Value | None) -> ir.Value | None:
    """The scale as it was quantized, where a layer scale is multiplied in."""
    producer = None if scale is None else scale.producer()
    return scale if producer is None or producer.op_type != "Mul" else producer.inputs[0]


def _constant(path: Path, value: ir.Value | None) -> np.ndarray:
    if value is None or value.const_value is None:
        raise ExportError(f"{path.name}: a weight is computed from what is no constant")
    return value.const_value.numpy()
