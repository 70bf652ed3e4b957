"""Ops that join, split and repeat tensors."""

from itertools import accumulate

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    INTEGER,
    Kernel,
    moves,
    required,
    setting,
    tensor,
    tensors,
)
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported


def _concat(view: OpView) -> Kernel:
    axis, interleave = view.integer("axis"), view.flag("interleave")
    scalars = view.rank("values") == 0

    def run(values: Values) -> Tensor:
        parts = values.many("values")
        if scalars:
            return torch.stack(parts)
        if not interleave:
            return torch.cat(parts, dim=axis)
        place = axis % parts[0].dim()
        return torch.stack(parts, dim=place + 1).flatten(place, place + 1)

    return run


def _stack(view: OpView) -> Kernel:
    axis = view.integer("axis")

    def run(values: Values) -> Tensor:
        return torch.stack(values.many("values"), dim=axis)

    return run


def _split(view: OpView) -> Kernel:
    axis = view.integer("axis")
    sizes = view.integers("split_sizes")
    num_splits = view.integer("num_splits", len(sizes))
    if num_splits != view.num_outputs or (sizes and len(sizes) != num_splits):
        raise Unsupported(f"{num_splits} parts for {view.num_outputs} results")

    def run(values: Values) -> tuple[Tensor, ...]:
        x = values["x"]
        total = x.shape[axis]
        if not sizes and total % num_splits:
            raise ValueError(f"{num_splits} parts of {total} elements are not even")
        lengths = sizes or (total // num_splits,) * num_splits
        if sum(lengths) != total:
            raise ValueError(f"parts of {lengths} do not make {total} elements")
        starts = accumulate((0, *lengths[:-1]))
        return tuple(
            x.narrow(axis, start, length) for start, length in zip(starts, lengths, strict=True)
        )

    return run


def _tile(view: OpView) -> Kernel:
    reps = view.running_integers("reps")

    def run(values: Values) -> Tensor:
        x = values["x"]
        counts = reps(values)
        if len(counts) != x.dim():
            raise ValueError(f"reps {counts} do not fit rank {x.dim()}")
        return x.repeat(counts)

    return run


DEFINITIONS = (
    moves(
        "concat",
        (tensors("values"), required("axis"), setting("interleave")),
        _concat,
        result="values",
    ),
    moves("stack", (tensors("values"), required("axis")), _stack, result="values"),
    moves(
        "split",
        (tensor("x"), setting("num_splits"), setting("split_sizes"), required("axis")),
        _split,
    ),
    moves("tile", (tensor("x"), tensor("reps", INTEGER)), _tile),
)
