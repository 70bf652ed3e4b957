"""Matrices in float16 that are widened when they are used: exactly, and never all at once.

A float32 copy of a whole language model would be what needs the most memory by far.
"""

from mlx import core as mx
from mlx import nn
from mlx.utils import tree_map_with_path


class WideningLinear(nn.Linear):
    """`nn.Linear` whose weight may be of less precision than what it is given."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.weight = linear.weight
        if "bias" in linear:
            self.bias = linear.bias

    def __call__(self, x: mx.array) -> mx.array:
        """[..., I] -> [..., O] in the type of x."""
        weight = self.weight.astype(x.dtype)
        return mx.addmm(self.bias, x, weight.T) if "bias" in self else x @ weight.T


class WideningEmbedding(nn.Embedding):
    """`nn.Embedding` likewise; `dtype` is what rows are given in."""

    def __init__(self, embedding: nn.Embedding, dtype: mx.Dtype) -> None:
        nn.Module.__init__(self)
        self.weight = embedding.weight
        self._dtype = dtype

    def __call__(self, x: mx.array) -> mx.array:
        """[...] -> [..., H]."""
        return self.weight[x].astype(self._dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """[..., H] -> [..., V], as the head of a tied model."""
        return x @ self.weight.astype(x.dtype).T


def widen_late(model: nn.Module, dtype: mx.Dtype) -> frozenset[str]:
    """Replace the plain linears and embeddings of a model; give the names of their matrices.

    Args:
        model: changed; quantized modules and all others stay.
        dtype: of the activations.
    """
    late: set[str] = set()

    def replaced(path: str, module: nn.Module) -> nn.Module:
        if type(module) is nn.Linear:
            late.add(f"{path}.weight")
            return WideningLinear(module)
        if type(module) is nn.Embedding:
            late.add(f"{path}.weight")
            return WideningEmbedding(module, dtype)
        return module

    leaves = tree_map_with_path(replaced, model.leaf_modules(), is_leaf=nn.Module.is_module)
    model.update_modules(leaves)
    return frozenset(late)
