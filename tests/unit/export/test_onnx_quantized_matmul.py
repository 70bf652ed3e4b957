"""MatMulNBits holds our integers bit for bit, and multiplies by what they dequantize to."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_helpers import relative_l2
from onnx_quantized_helpers import (
    Vectors,
    finish,
    linear_graph,
    random_tensor,
    run_model,
    unread,
    write_quantized,
)

from fastvlm_compile.export.onnx.linear import LinearSpec, PlainLinear
from fastvlm_compile.export.onnx.matmul_nbits import AccuracyLevel, NBitsLinear, read_matmul_nbits
from fastvlm_compile.export.onnx.quantized_weights import QuantizedReader
from fastvlm_compile.export.onnx.read_back import split_rows
from fastvlm_compile.quantize.scheme import Affine, Palette
from fastvlm_compile.quantize.tensor import QuantizedTensor, same_tensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.errors import UserError

# Sums of some hundred float32 products in another order.
EXACT = 2e-6

# Activations rounded to 8 bits, block by block: an error of 0.7 % of each, more of a small sum.
ROUNDED = 4e-2

SHAPES = {
    "whole blocks": (24, 256),
    "an odd number of blocks": (9, 384),
    "a short last block": (16, 200),
    "less than a block": (8, 24),
}
SCHEMES = [
    Affine(bits=bits, block_size=block, symmetric=symmetric)
    for bits in (4, 8)
    for block in (16, 32, 64, 128)
    for symmetric in (True, False)
]


def emitter(
    quantized: QuantizedWeights,
    source: Vectors | None = None,
    accuracy_level: AccuracyLevel = 0,
) -> NBitsLinear:
    source = Vectors({}) if source is None else source
    return NBitsLinear(
        source=source,
        quantized=quantized,
        reader=QuantizedReader.of(quantized),
        other=PlainLinear(source=source),
        accuracy_level=accuracy_level,
    )


def one_linear(
    tensor: QuantizedTensor,
    folder: Path,
    bias: torch.Tensor | None = None,
    accuracy_level: AccuracyLevel = 0,
) -> ir.Model:
    quantized = write_quantized(folder, {"a.weight": tensor})
    source = Vectors({} if bias is None else {"a.bias": bias})
    rows, columns = tensor.shape
    graph, x = linear_graph(columns)
    spec = LinearSpec(name="a", weight="a.weight", bias=None if bias is None else "a.bias")
    y = emitter(quantized, source, accuracy_level)(graph, x, spec)
    return finish(graph, y, ("rows", rows))


def multiplied(x: np.ndarray, tensor: QuantizedTensor) -> np.ndarray:
    return x.astype(np.float64) @ tensor.dequantize().astype(np.float64).T


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def only_node(model: ir.Model) -> ir.Node:
    (node,) = [node for node in model.graph if node.op_type == "MatMulNBits"]
    return node


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_any_block_size_and_both_symmetries_come_back_bit_for_bit_and_multiply_exactly(
    scheme: Affine, shape: tuple[int, int], tmp_path: Path
) -> None:
    tensor = random_tensor(scheme, shape)
    model = one_linear(tensor, tmp_path / "q")
    assert same_tensor(read_matmul_nbits(model.graph, only_node(model)), tensor)
    x = normal(3, shape[1])
    (y,) = run_model(model, {"x": x})
    assert relative_l2(y, multiplied(x, tensor)) <= EXACT


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("scheme", SCHEMES[::3], ids=str)
def test_the_shipped_accuracy_level_only_rounds_activations(
    scheme: Affine, shape: tuple[int, int], tmp_path: Path
) -> None:
    tensor = random_tensor(scheme, shape)
    model = one_linear(tensor, tmp_path / "q", accuracy_level=4)
    assert only_node(model).attributes["accuracy_level"].as_int() == 4
    for rows in (1, 40):
        x = normal(rows, shape[1])
        (y,) = run_model(model, {"x": x})
        assert relative_l2(y, multiplied(x, tensor)) <= ROUNDED


@pytest.mark.parametrize("part", ["codes", "scales", "zero_points"])
def test_the_checks_see_one_changed_number(part: str, tmp_path: Path) -> None:
    tensor = random_tensor(Affine(bits=4, block_size=32, symmetric=False), (16, 96))
    model = one_linear(tensor, tmp_path / "q")
    constant = model.graph.initializers[f"a.{part}"].const_value
    assert constant is not None
    values = constant.numpy().copy()
    if part == "scales":  # of two neighbouring blocks, exchanged
        values[3, 0], values[3, 1] = values[3, 1], values[3, 0]
    elif part == "codes":  # the order of two nibbles
        values[3, 0, 0] = values[3, 0, 0] >> 4 | (values[3, 0, 0] & 15) << 4
        assert values[3, 0, 0] != constant.numpy()[3, 0, 0]
    else:
        values[3, 0] += 1
    model.graph.initializers[f"a.{part}"].const_value = ir.Tensor(values, name=f"a.{part}")
    assert not same_tensor(read_matmul_nbits(model.graph, only_node(model)), tensor)
    x = normal(3, 96)
    (y,) = run_model(model, {"x": x})
    assert not relative_l2(y, multiplied(x, tensor)) <= 100 * EXACT


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_bias_is_added_by_the_op(symmetric: bool, tmp_path: Path) -> None:
    tensor = random_tensor(Affine(bits=4, block_size=32, symmetric=symmetric), (16, 64))
    bias = torch.linspace(-3, 3, 16).half()
    model = one_linear(tensor, tmp_path / "q", bias)
    assert [node.op_type for node in model.graph] == ["MatMulNBits"]
    x = normal(5, 64)
    (y,) = run_model(model, {"x": x})
    assert relative_l2(y, multiplied(x, tensor) + bias.float().numpy()) <= EXACT
    assert not relative_l2(y, multiplied(x, tensor)) <= 100 * EXACT


def test_a_symmetric_scheme_stores_no_zero_points_and_scales_are_the_halves_widened(
    tmp_path: Path,
) -> None:
    tensor = random_tensor(Affine(bits=4, block_size=32, symmetric=True), (16, 64))
    model = one_linear(tensor, tmp_path / "q")
    assert set(model.graph.initializers) == {"a.codes", "a.scales"}
    scales = model.graph.initializers["a.scales"].const_value
    assert scales is not None
    assert scales.numpy().dtype == np.float32
    assert np.array_equal(scales.numpy(), tensor.scales.astype(np.float32))


def test_a_layer_that_is_not_quantized_is_written_as_before(tmp_path: Path) -> None:
    quantized = write_quantized(tmp_path / "q", {"a.weight": random_tensor(SCHEMES[0], (16, 64))})
    source = Vectors({"b.weight": torch.from_numpy(normal(8, 64))})
    graph, x = linear_graph(64)
    y = emitter(quantized, source)(graph, x, LinearSpec(name="b", weight="b.weight"))
    model = finish(graph, y, ("rows", 8))
    assert [node.op_type for node in model.graph] == ["MatMul"]


@pytest.mark.parametrize(
    ("scheme", "described"),
    [
        (Affine(bits=8, block_size=0, symmetric=True), "int8 per channel symmetric"),
        (Palette(bits=4, group_size=16), "lut4 group 16"),
    ],
)
def test_what_the_op_cannot_hold_is_the_users_error_and_names_the_tensor(
    scheme: Affine | Palette, described: str
) -> None:
    quantized = unread({"a.weight": (scheme, (32, 64))})
    graph, x = linear_graph(64)
    with pytest.raises(UserError, match=f"a.weight: .* cannot hold {described}") as caught:
        emitter(quantized)(graph, x, LinearSpec(name="a", weight="a.weight"))
    assert "blocks of 16, 32, 64 or 128" in (caught.value.hint or "")


def test_joined_layers_are_the_rows_of_their_parts_and_give_their_outputs(tmp_path: Path) -> None:
    scheme = Affine(bits=4, block_size=32, symmetric=False)
    rows = {"q": 16, "k": 8, "v": 8}
    parts = {f"{n}.weight": random_tensor(scheme, (r, 96), r) for n, r in rows.items()}
    parts["v.weight"] = random_tensor(scheme, (8, 96), 5)
    biases = {f"{n}.bias": torch.full((r,), float(i)) for i, (n, r) in enumerate(rows.items())}
    graph, x = linear_graph(96)
    specs = [LinearSpec(name=n, weight=f"{n}.weight", bias=f"{n}.bias") for n in rows]
    quantized = write_quantized(tmp_path / "q", parts)
    y = emitter(quantized, Vectors(biases)).join(graph, x, "qkv", specs)
    assert y is not None
    model = finish(graph, y, ("rows", 32))
    stacked = read_matmul_nbits(model.graph, only_node(model))
    for found, expected in zip(split_rows(stacked, [16, 8, 8]), parts.values(), strict=True):
        assert same_tensor(found, expected)
    values = normal(4, 96)
    (out,) = run_model(model, {"x": values})
    expected = np.concatenate([multiplied(values, part) for part in parts.values()], axis=1)
    expected += torch.cat(list(biases.values())).numpy()
    assert relative_l2(out, expected) <= EXACT


def test_layers_of_different_schemes_are_not_joined(tmp_path: Path) -> None:
    quantized = unread(
        {
            "q.weight": (Affine(bits=4, block_size=32, symmetric=True), (16, 64)),
            "k.weight": (Affine(bits=8, block_size=32, symmetric=True), (16, 64)),
        }
    )
    graph, x = linear_graph(64)
    for names in (("q", "k"), ("q", "not_quantized")):
        specs = [LinearSpec(name=name, weight=f"{name}.weight") for name in names]
        assert emitter(quantized).join(graph, x, "qk", specs) is None


def test_scales_that_are_no_halves_are_refused_when_read(tmp_path: Path) -> None:
    model = one_linear(random_tensor(SCHEMES[0], (16, 64)), tmp_path / "q")
    scales = np.full((16, 4), 0.1, dtype=np.float32)
    model.graph.initializers["a.scales"].const_value = ir.Tensor(scales, name="a.scales")
    with pytest.raises(ValueError, match=r"a\.scales: scales that float16 does not hold"):
        read_matmul_nbits(model.graph, only_node(model))
