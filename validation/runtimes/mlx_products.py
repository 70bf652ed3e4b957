"""Products of many rows, taken by numpy from the matrices that mlx holds.

`mlx` for Linux is built with the reference BLAS, and its kernel of quantized matrices is made for
single rows: either does some 4 GFLOP/s on one core, so that one prompt took a 7B twenty minutes.
What is left to mlx is what a device's answer hangs on: reading packed codes (`mx.dequantize`, exact
in float32), every product of few rows (`mx.quantized_matmul`), and all that is no product.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_map_with_path

from validation.runtimes.base import Floats

FEW_ROWS = 16
"""Up to so many, as a device has them when it decodes, mlx multiplies itself."""
_BLOCK_VALUES = 1 << 22
"""Of a matrix in float32 at a time: 16 MiB, whatever the machine has."""

Rows = Callable[[slice], mx.array]
"""Rows of a matrix [O, I] in float32, not evaluated yet."""


class NumpyProduct(nn.Module):
    """A linear layer, or a 1x1 convolution over channels, in float32.

    Args:
        inner: with its weights; computes what has few rows.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __call__(self, x: mx.array) -> mx.array:
        """[..., I] -> [..., O]."""
        inner = self.inner
        if _num_rows(x) <= FEW_ROWS:
            return inner(x)
        found = multiply(x, rows_of(inner), num_outputs=inner.weight.shape[0])
        return found + inner.bias if "bias" in inner else found


class NumpyEmbedding(nn.Module):
    """An embedding that is also the head.

    Args:
        inner: with its weights; looks rows up, and computes what has few rows.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __call__(self, x: mx.array) -> mx.array:
        """[...] -> [..., H]."""
        return self.inner(x)

    def as_linear(self, x: mx.array) -> mx.array:
        """[..., H] -> [..., V]."""
        inner = self.inner
        if _num_rows(x) <= FEW_ROWS:
            return inner.as_linear(x)
        return multiply(x, rows_of(inner), num_outputs=inner.weight.shape[0])


def multiply_in_numpy(model: nn.Module) -> None:
    """Replace what has a matrix in a loaded model whose activations are float32."""

    def replaced(path: str, module: nn.Module) -> nn.Module:
        del path
        if isinstance(module, nn.Embedding | nn.QuantizedEmbedding):
            return NumpyEmbedding(module)
        if isinstance(module, nn.Linear | nn.QuantizedLinear) or _is_pointwise(module):
            return NumpyProduct(module)
        return module

    leaves = tree_map_with_path(replaced, model.leaf_modules(), is_leaf=nn.Module.is_module)
    model.update_modules(leaves)


def multiply(x: mx.array, rows: Rows, *, num_outputs: int) -> mx.array:
    """The product with a transposed matrix.

    Args:
        x: float32 [..., I].
        rows: of the matrix [O, I].
        num_outputs: O.

    Returns:
        float32 [..., O].
    """
    num_inputs = x.shape[-1]
    left = _floats(x.reshape(-1, num_inputs))
    found = np.empty((len(left), num_outputs), np.float32)
    step = max(1, _BLOCK_VALUES // num_inputs)
    blocks = [slice(begin, begin + step) for begin in range(0, num_outputs, step)]
    ready = rows(blocks[0])
    for number, block in enumerate(blocks):
        current = _floats(ready)
        if number + 1 < len(blocks):
            ready = rows(blocks[number + 1])
            mx.async_eval(ready)  # in mlx's own thread, while this one multiplies
        np.matmul(left, current.T, out=found[:, block])
    return mx.array(found).reshape(*x.shape[:-1], num_outputs)


def rows_of(module: nn.Module) -> Rows:
    """The rows of a module's matrix; codes times scales plus biases where it is quantized."""
    weight = module.weight
    if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return lambda block: mx.dequantize(
            weight[block],
            module.scales[block],
            module.biases[block],
            group_size=module.group_size,
            bits=module.bits,
        )
    matrix = weight.reshape(weight.shape[0], -1)
    return lambda block: matrix[block].astype(mx.float32)


def _is_pointwise(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    plain = (module.stride, module.padding, module.dilation, module.groups)
    return module.weight.shape[1:3] == (1, 1) and plain == ((1, 1), (0, 0), 1, 1)


def _num_rows(x: mx.array) -> int:
    return x.size // x.shape[-1]


def _floats(array: mx.array) -> Floats:
    """What an array holds, evaluated, in place."""
    return np.asarray(array)
