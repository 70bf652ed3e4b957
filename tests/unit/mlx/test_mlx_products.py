"""What numpy multiplies is what mlx multiplies, up to the rounding of float32."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_helpers import relative_l2, write_mlx

from reference.checkpoint.tensors import Checkpoint
from validation.runtimes.mlx_products import (
    FEW_ROWS,
    NumpyEmbedding,
    NumpyProduct,
    multiply_in_numpy,
)
from validation.runtimes.mlx_runtime import open_mlx
from validation.runtimes.mlx_widening import widen_late

EXACT = 1e-6
"""Sums of 512 float32 products in another order."""
ON_CPU = mx.default_device() == mx.Device(mx.cpu)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quantized = nn.QuantizedLinear(512, 96, group_size=32, bits=4)
        self.quantized_bare = nn.QuantizedLinear(512, 96, bias=False, group_size=64, bits=8)
        self.plain = nn.Linear(512, 96)
        self.half = nn.Linear(512, 96, bias=False)
        self.half.weight = self.half.weight.astype(mx.float16)
        self.pointwise = nn.Conv2d(512, 96, 1)
        self.quantized.bias = mx.random.normal((96,))
        self.pointwise.bias = mx.random.normal((96,))

    def __call__(self, x: mx.array) -> dict[str, mx.array]:
        linear = ("quantized", "quantized_bare", "plain", "half")
        found = {name: self[name](x) for name in linear}
        return found | {"pointwise": self.pointwise(x[None])[0]}


@pytest.mark.parametrize("num_rows", [1, FEW_ROWS // 2, FEW_ROWS])
def test_few_rows_are_multiplied_by_mlx_itself(num_rows: int) -> None:
    mx.random.seed(0)
    model = Model()
    x = mx.random.normal((2, num_rows // 2 or 1, 512))[: min(num_rows, 2)]
    expected = model(x)
    multiply_in_numpy(model)
    assert all(np.array_equal(found, expected[name]) for name, found in model(x).items())


def test_many_rows_give_the_same_numbers_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    mx.random.seed(0)
    model = Model()
    x = mx.random.normal((3, FEW_ROWS, 512))
    expected = {name: np.array(found) for name, found in model(x).items()}
    multiply_in_numpy(model)
    assert all(isinstance(module, NumpyProduct) for module in model.children().values())
    for block_values in (
        1 << 22,
        512 * 40,
        1,
    ):  # one block, a last one that is smaller, single rows
        monkeypatch.setattr("validation.runtimes.mlx_products._BLOCK_VALUES", block_values)
        for name, found in model(x).items():
            assert found.shape == (3, FEW_ROWS, 96)
            assert relative_l2(np.array(found), expected[name]) <= EXACT, name


def test_a_broken_kernel_of_mlx_shows_in_few_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    multiply_in_numpy(model)
    many = mx.random.normal((FEW_ROWS + 1, 512))
    before = [np.array(model.quantized(x)) for x in (many, many[:1])]
    monkeypatch.setattr(nn.QuantizedLinear, "__call__", lambda self, x: mx.zeros((len(x), 96)))
    after = [np.array(model.quantized(x)) for x in (many, many[:1])]
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


@pytest.mark.parametrize("kind", ["quantized", "widening"])
def test_a_tied_head_is_multiplied_likewise(kind: str) -> None:
    mx.random.seed(0)
    embedding = nn.Embedding(300, 64)
    model = nn.Sequential(embedding)
    if kind == "quantized":
        nn.quantize(model, group_size=32, bits=8)
    else:
        embedding.weight = embedding.weight.astype(mx.float16)
        widen_late(model, mx.float32)
    x, ids = mx.random.normal((FEW_ROWS + 1, 64)), mx.array([3, 299])
    (inner,) = model.layers
    expected, rows = np.array(inner.as_linear(x)), np.array(inner(ids))
    multiply_in_numpy(model)
    (late,) = model.layers
    assert isinstance(late, NumpyEmbedding)
    assert np.array_equal(np.array(late(ids)), rows)
    assert relative_l2(np.array(late.as_linear(x)), expected) <= EXACT
    assert np.array_equal(np.array(late.as_linear(x[:1])), np.array(inner.as_linear(x[:1])))


def test_depthwise_and_strided_convolutions_stay_with_mlx() -> None:
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, groups=8),
        nn.Conv2d(8, 8, 1),
    )
    multiply_in_numpy(model)
    kinds = [type(layer) for layer in model.layers]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.Conv2d, NumpyProduct]


@pytest.mark.skipif(not ON_CPU, reason="on a GPU mlx multiplies everything")
def test_the_executor_tells_what_multiplies(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = write_mlx(checkpoint, None, tmp_path / "out")
    assert open_mlx(folder).executor.endswith("(CPU, float32; products of many rows in numpy)")
    assert open_mlx(folder, compute="float16").executor.endswith("(CPU, float16)")
