"""Matrices widened late give what those widened at once give, and are kept as they are stored."""

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from validation.runtimes.mlx_widening import widen_late


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(10, 32)
        self.layers = [nn.Linear(32, 32), nn.Linear(32, 32, bias=False)]
        self.coarse = nn.QuantizedLinear(32, 32, group_size=32, bits=8)
        self.norm = nn.RMSNorm(32)

    def __call__(self, ids: mx.array) -> mx.array:
        x = self.rows(ids)
        for layer in (*self.layers, self.coarse, self.norm):
            x = layer(x)
        return self.rows.as_linear(x)


def test_the_results_are_the_same_bit_for_bit() -> None:
    mx.random.seed(0)
    model = Model()
    halves = {
        name: array.astype(mx.float16)
        for name, array in tree_flatten(model.parameters())
        if mx.issubdtype(array.dtype, mx.floating)
    }
    model.load_weights([(n, a.astype(mx.float32)) for n, a in halves.items()], strict=False)
    ids = mx.array([[1, 2, 3, 9]])
    expected = np.array(model(ids))
    late = widen_late(model, mx.float32)
    assert late == {"rows.weight", "layers.0.weight", "layers.1.weight"}
    kept = [(n, a if n in late else a.astype(mx.float32)) for n, a in halves.items()]
    model.load_weights(kept, strict=False)
    found = model(ids)
    assert found.dtype == mx.float32
    assert np.array_equal(np.array(found), expected)
    assert {model.rows.weight.dtype, model.layers[0].weight.dtype} == {mx.float16}
