"""Running sums, matrix bands and padding (iOS 15 `tensor_operation`)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from validation.runtimes.ml_program.op import (
    ANY,
    FLOAT,
    INTEGER,
    NUMBER,
    Kernel,
    OpDef,
    setting,
    tensor,
)
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView


def _cumsum(view: OpView) -> Kernel:
    axis = view.integer("axis", 0)
    exclusive, reverse = view.flag("exclusive"), view.flag("reverse")

    def run(values: Values) -> Tensor:
        x = values["x"]
        if reverse:
            x = x.flip(axis)
        total = torch.cumsum(x, dim=axis, dtype=x.dtype)
        if exclusive:
            first = torch.zeros_like(x.narrow(axis, 0, 1))
            total = torch.cat((first, total.narrow(axis, 0, x.shape[axis] - 1)), dim=axis)
        return total.flip(axis) if reverse else total

    return run


def _band_part(view: OpView) -> Kernel:
    lower, upper = view.integer("lower", -1), view.integer("upper", -1)

    def run(values: Values) -> Tensor:
        x = values["x"]
        if lower >= 0:
            x = torch.triu(x, -lower)
        return torch.tril(x, upper) if upper >= 0 else x

    return run


def _pad(view: OpView) -> Kernel:
    amounts = view.running_integers("pad")
    mode = view.text("mode", ("constant", "reflect", "replicate"), "constant")
    value = view.number("constant_val", 0.0)

    def run(values: Values) -> Tensor:
        x = values["x"]
        given = amounts(values)
        if len(given) % 2 or len(given) > 2 * x.dim() or min(given, default=0) < 0:
            raise ValueError(f"pad {given} does not fit rank {x.dim()}")
        pairs = list(zip(given[::2], given[1::2], strict=True))
        if mode == "constant":
            flat = [amount for pair in reversed(pairs) for amount in pair]
            return F.pad(x, flat, value=value)
        first = x.dim() - len(pairs)
        for axis, (before, after) in enumerate(pairs, start=first):
            if before or after:
                x = x.index_select(axis, _extended(x.shape[axis], before, after, mode))
        return x

    return run


def _extended(size: int, before: int, after: int, mode: str) -> Tensor:
    """Indices of a dimension that is continued beyond both ends."""
    index = torch.arange(-before, size + after)
    if mode == "replicate":
        return index.clamp(0, size - 1)
    if max(before, after) >= size:
        raise ValueError(f"reflecting {max(before, after)} elements of {size}")
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


DEFINITIONS = (
    OpDef(
        kind="cumsum",
        params=(tensor("x", NUMBER), setting("axis"), setting("exclusive"), setting("reverse")),
        bind=_cumsum,
    ),
    OpDef(
        kind="band_part",
        params=(tensor("x", ANY), setting("lower"), setting("upper")),
        bind=_band_part,
        exact=True,
        aliases=("x",),
    ),
    OpDef(
        kind="pad",
        params=(
            tensor("x", FLOAT),
            tensor("pad", INTEGER),
            setting("mode"),
            setting("constant_val"),
        ),
        bind=_pad,
        exact=True,
        aliases=("x",),
    ),
)
