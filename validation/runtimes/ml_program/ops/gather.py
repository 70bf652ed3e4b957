"""Ops that gather elements by index (iOS 15, 16 and 17 `scatter_gather`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    INTEGER,
    Kernel,
    OpDef,
    moves,
    setting,
    tensor,
)
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView


def valid_indices(indices: Tensor, size: int, *, opset: int) -> Tensor:
    """Indices as int64, negative ones counted from the end where the opset allows it.

    From iOS 17 on what a negative or too large index does is undefined, so it is an error here.

    Raises:
        IndexError: an index is out of bounds.
    """
    indices = indices.to(torch.int64)
    if not indices.numel():
        return indices
    low, high = int(indices.min()), int(indices.max())
    if high >= size or low < (0 if opset >= 7 else -size):
        raise IndexError(f"index {high if high >= size else low} lies outside 0 .. {size - 1}")
    return torch.where(indices < 0, indices + size, indices) if low < 0 else indices


def take(x: Tensor, indices: Tensor, axis: int, batch_dims: int) -> Tensor:
    """`x` at valid `indices` along `axis`, the first `batch_dims` dimensions paired up."""
    if batch_dims == 0:
        found = x.index_select(axis, indices.reshape(-1))
        return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if batch_dims == axis + 1:  # the gathered dimension is itself one of the paired ones
        raise ValueError(f"batch_dims {batch_dims} reaches axis {axis}")
    pairs = zip(x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1), strict=True)
    parts = [take(part, index, axis - batch_dims, 0) for part, index in pairs]
    return torch.stack(parts).reshape(*x.shape[:batch_dims], *parts[0].shape)


def take_nd(x: Tensor, indices: Tensor, batch_dims: int, *, opset: int) -> Tensor:
    """`x` at index vectors held in the last dimension of `indices`."""
    depth = indices.shape[-1]
    vectors = [
        valid_indices(indices[..., i], x.shape[batch_dims + i], opset=opset) for i in range(depth)
    ]
    if not batch_dims:
        return x[tuple(vectors)]
    ranks = indices.dim() - 1
    paired = [
        torch.arange(x.shape[i]).reshape([-1 if j == i else 1 for j in range(ranks)])
        for i in range(batch_dims)
    ]
    return x[tuple(paired + vectors)]


def _gather(view: OpView) -> Kernel:
    axis = view.integer("axis", 0) % view.rank("x")
    batch_dims = view.integer("batch_dims", 0)
    opset = view.opset

    def run(values: Values) -> Tensor:
        x = values["x"]
        indices = valid_indices(values["indices"], x.shape[axis], opset=opset)
        return take(x, indices, axis, batch_dims)

    return run


def _gather_along_axis(view: OpView) -> Kernel:
    axis = view.integer("axis", 0) % view.rank("x")
    opset = view.opset

    def run(values: Values) -> Tensor:
        x = values["x"]
        return x.gather(axis, valid_indices(values["indices"], x.shape[axis], opset=opset))

    return run


def _gather_nd(view: OpView) -> Kernel:
    batch_dims = view.integer("batch_dims", 0)
    opset = view.opset

    def run(values: Values) -> Tensor:
        return take_nd(values["x"], values["indices"], batch_dims, opset=opset)

    return run


def _versions(kind: str, bind: Callable[[OpView], Kernel], *settings: str) -> tuple[OpDef, ...]:
    """iOS 15 with `settings` known from the start, `batch_dims` from 16, validation from 17."""
    base = (tensor("x"), tensor("indices", INTEGER), *(setting(name) for name in settings))
    batched = base if kind == "gather_along_axis" else (*base, setting("batch_dims"))
    return (
        moves(kind, base, bind),
        moves(kind, batched, bind, since=6),
        moves(kind, (*batched, setting("validate_indices")), bind, since=7),
    )


DEFINITIONS = (
    *_versions("gather", _gather, "axis"),
    *_versions("gather_along_axis", _gather_along_axis, "axis"),
    *_versions("gather_nd", _gather_nd),
)
