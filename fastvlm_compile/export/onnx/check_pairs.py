"""Whether integers of activations are read as they were written, in a saved vision graph.

A range that both sides of a pair have wrong is another calibration, and not for this check: it
shows in what the tower returns, if it matters.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.activation_ranges import MANTISSAS


def check_activation_pairs(path: Path) -> None:
    """Every QuantizeLinear is followed by DequantizeLinear alone, with the same scale, which is of
    the grid that ranges are chosen from, and the same zero point.

    Raises:
        ExportError: one is not so; it is named.
    """
    readers = 0
    nodes = list(ir.load(path).graph)
    for node in nodes:
        if node.op_type != "QuantizeLinear":
            continue
        written = _range(path, node)
        if not _on_grid(written[0]):
            raise ExportError(f"{path.name}: {node.name}: no range has the scale {written[0]}")
        for reader in node.outputs[0].consumers():
            readers += 1
            if reader.op_type != "DequantizeLinear" or _range(path, reader) != written:
                raise ExportError(f"{path.name}: {reader.name} reads other integers than written")
    found = sum(node.op_type == "DequantizeLinear" and len(node.inputs) == 3 for node in nodes)
    if found != readers:
        raise ExportError(f"{path.name}: {found} activations are read, {readers} were written")


def _range(path: Path, node: ir.Node) -> tuple[float, int]:
    """Scale and zero point."""
    numbers = []
    for value in node.inputs[1:]:
        if value is None or value.const_value is None or value.const_value.size != 1:
            raise ExportError(f"{path.name}: the range of {node.name} is no constant")
        numbers.append(value.const_value.numpy())
    if len(numbers) != 2 or numbers[1].dtype != np.uint8:
        raise ExportError(f"{path.name}: {node.name} has no zero point of type uint8")
    return float(numbers[0].item()), int(numbers[1].item())


def _on_grid(scale: float) -> bool:
    fraction, _ = np.frexp(scale)  # in 0.5 .. 1
    return bool(scale > 0 and np.any(2 * fraction == MANTISSAS))
