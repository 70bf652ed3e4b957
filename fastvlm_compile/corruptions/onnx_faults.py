"""Faults of ONNX graphs beside those of weights: activations' ranges, axes, attributes."""

from collections.abc import Callable, Iterable

import numpy as np
import onnx

from fastvlm_compile.corruptions.fault import Context, Fault
from fastvlm_compile.corruptions.onnx_draft import BLOCK_OPS, OnnxDraft
from fastvlm_compile.corruptions.stored import Draft

Damage = Callable[[OnnxDraft, onnx.NodeProto], str]

WRONG_FACTOR = 1.05


def graph_faults(draft: OnnxDraft, file: str) -> Iterable[Fault]:
    """Of every op that takes or gives integers."""
    for node in draft.program.graph.node:
        if node.op_type == "QuantizeLinear":
            for kind, damage in _RANGES.items():
                yield _fault(kind, file, node, damage, of_weights=False)
        if _axis(node) is not None:
            yield _fault("scales along the wrong axis", file, node, _other_axis)
        if node.op_type in BLOCK_OPS:
            yield _fault("block size doubled", file, node, _attribute("block_size", 2))
        if node.op_type == "MatMulNBits" and len(node.input) > 3 and node.input[3]:
            yield _fault("zero points forgotten", file, node, _no_zero_points)


def _fault(
    kind: str, file: str, node: onnx.NodeProto, damage: Damage, *, of_weights: bool = True
) -> Fault:
    name = node.output[0]

    def change(draft: Draft, context: Context) -> str:
        del context
        assert isinstance(draft, OnnxDraft)
        (found,) = (each for each in draft.program.graph.node if each.output[0] == name)
        return damage(draft, found)

    return Fault(kind=kind, file=file, where=name, change=change, of_weights=of_weights)


def _reader_scaled(draft: OnnxDraft, node: onnx.NodeProto) -> str:
    scale, _ = _of_reader(draft, node)
    scale[...] *= np.float32(WRONG_FACTOR)
    return ""


def _reader_moved(draft: OnnxDraft, node: onnx.NodeProto) -> str:
    _, zero = _of_reader(draft, node)
    old = int(zero)
    zero[...] = old + 1 if old < 255 else old - 1
    return f"{old} -> {int(zero)}"


def _reader_of_another(draft: OnnxDraft, node: onnx.NodeProto) -> str:
    """The integers are read in the range of the activation before, or the last."""
    nodes = [each for each in draft.program.graph.node if each.op_type == "QuantizeLinear"]
    other = nodes[nodes.index(node) - 1]
    scale, zero = _of_reader(draft, node)
    scale[...], zero[...] = draft.array(other.input[1]), draft.array(other.input[2])
    return f"that of {other.output[0]}"


def _both_scaled(draft: OnnxDraft, node: onnx.NodeProto) -> str:
    draft.array(node.input[1])[...] *= np.float32(WRONG_FACTOR)
    return ""


_RANGES: dict[str, Damage] = {
    "activation scale x1.05 where it is read": _reader_scaled,
    "activation zero point +1 where it is read": _reader_moved,
    "activation range of another layer where it is read": _reader_of_another,
    "activation scale x1.05": _both_scaled,
}


def _of_reader(draft: OnnxDraft, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of the DequantizeLinear behind a QuantizeLinear, its own from now on."""
    graph = draft.program.graph
    (reader,) = (
        each
        for each in graph.node
        if each.op_type == "DequantizeLinear" and each.input[0] == node.output[0]
    )
    for place in (1, 2):
        name = f"{reader.input[place]}_of_{reader.output[0]}"
        draft.add(name, draft.array(reader.input[place]).copy())
        reader.input[place] = name
    return draft.array(reader.input[1]), draft.array(reader.input[2])


def _axis(node: onnx.NodeProto) -> int | None:
    """Of a DequantizeLinear that has one."""
    found = [each.i for each in node.attribute if each.name == "axis"]
    return found[0] if node.op_type == "DequantizeLinear" and found else None


def _other_axis(draft: OnnxDraft, node: onnx.NodeProto) -> str:
    del draft
    (axis,) = (each for each in node.attribute if each.name == "axis")
    axis.i = 1 - axis.i
    return f"axis {1 - axis.i} -> {axis.i}"


def _attribute(name: str, factor: int) -> Damage:
    def damage(draft: OnnxDraft, node: onnx.NodeProto) -> str:
        del draft
        (found,) = (each for each in node.attribute if each.name == name)
        found.i *= factor
        return f"{found.i // factor} -> {found.i}"

    return damage


def _no_zero_points(draft: OnnxDraft, node: onnx.NodeProto) -> str:
    del draft
    node.input[3] = ""
    return ""
