"""Integers of activations are read as they were written, or the graph is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.check_pairs import check_activation_pairs

SCALE = np.float32(304 / 256 / 8)  # of the grid


def write_pair(
    path: Path,
    *,
    written: tuple[float, int] = (float(SCALE), 7),
    read: tuple[float, int] = (float(SCALE), 7),
    readers: int = 1,
) -> Path:
    """x -> QuantizeLinear -> DequantizeLinear -> y, each with a range of its own."""
    values = {"write": written, "read": read}
    initializers = []
    for side, (scale, zero) in values.items():
        initializers.append(helper.make_tensor(f"{side}_scale", TensorProto.FLOAT, [], [scale]))
        initializers.append(helper.make_tensor(f"{side}_zero", TensorProto.UINT8, [], [zero]))
    nodes = [helper.make_node("QuantizeLinear", ["x", "write_scale", "write_zero"], ["q"], "write")]
    for number in range(readers):
        inputs = ["q", "read_scale", "read_zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"y{number}"], f"read{number}"))
    shape = ["n"]
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, shape) for n in range(readers)],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), str(path))
    return path


@pytest.mark.parametrize("readers", [1, 2])
def test_pairs_of_one_range_pass(tmp_path: Path, readers: int) -> None:
    check_activation_pairs(write_pair(tmp_path / "pair.onnx", readers=readers))


@pytest.mark.parametrize(
    "read", [(float(SCALE) * 1.05, 7), (float(SCALE) * 2, 7), (float(SCALE), 8)]
)
def test_a_reader_with_another_range_is_refused(tmp_path: Path, read: tuple[float, int]) -> None:
    path = write_pair(tmp_path / "pair.onnx", read=read)
    with pytest.raises(ExportError, match="read0 reads other integers than written"):
        check_activation_pairs(path)


@pytest.mark.parametrize("scale", [float(SCALE) * 1.05, float("nan"), -float(SCALE), 0.0])
def test_a_scale_that_no_range_has_is_refused(tmp_path: Path, scale: float) -> None:
    path = write_pair(tmp_path / "pair.onnx", written=(scale, 7), read=(scale, 7))
    with pytest.raises(ExportError, match="no range has the scale"):
        check_activation_pairs(path)


def test_integers_that_nobody_wrote_are_refused(tmp_path: Path) -> None:
    path = write_pair(tmp_path / "pair.onnx")
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "Cast"
    del model.graph.node[0].input[1:]
    model.graph.node[0].attribute.append(helper.make_attribute("to", TensorProto.UINT8))
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="1 activations are read, 0 were written"):
        check_activation_pairs(path)
