"""Ops that make tensors from shapes, ranges and indices (iOS 15 and 16 `tensor_operation`)."""

import math

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    ANY,
    INT32,
    INTEGER,
    NUMBER,
    Kernel,
    OpDef,
    setting,
    tensor,
)
from validation.runtimes.ml_program.tensors import STORAGE
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported


def _expect(view: OpView, name: str, default: DType) -> DType:
    """The declared element type of the result, which must be that of `name`."""
    wanted = view.dtype(name) if view.has(name) else default
    if view.output().dtype is not wanted:
        raise Unsupported(f"its result is declared {view.output().dtype.value}, not {wanted.value}")
    return wanted


def _fill(view: OpView) -> Kernel:
    shape, value = view.running_integers("shape"), view.number("value", 0.0)
    storage = STORAGE[_expect(view, "value", DType.FP32)]

    def run(values: Values) -> Tensor:
        return torch.full(shape(values), value, dtype=torch.float64).to(storage)

    return run


def _fill_like(view: OpView) -> Kernel:
    value = view.number("value", 0.0)
    storage = STORAGE[_expect(view, "value", DType.FP32)]

    def run(values: Values) -> Tensor:
        shape = values["ref_tensor"].shape
        return torch.full(shape, value, dtype=torch.float64).to(storage)

    return run


def _range_1d(view: OpView) -> Kernel:
    storage = STORAGE[view.output().dtype]

    def run(values: Values) -> Tensor:
        start, end, step = (values[name].item() for name in ("start", "end", "step"))
        if step == 0:
            raise ValueError("step 0")
        count = max(0, math.ceil((end - start) / step))
        # Not torch.arange(start, end, step): with fractions its length may be off by one.
        return (start + torch.arange(count, dtype=torch.float64) * step).to(storage)

    return run


def _one_hot(view: OpView) -> Kernel:
    rank = view.rank("indices") + 1
    axis = view.integer("axis", -1) % rank
    on, off = view.number("on_value", 1.0), view.number("off_value", 0.0)
    storage = STORAGE[_expect(view, "on_value", DType.INT32)]
    size = view.running_integers("one_hot_vector_size")

    def run(values: Values) -> Tensor:
        (length,) = size(values)
        places = torch.arange(length).reshape([-1 if i == axis else 1 for i in range(rank)])
        hot = values["indices"].unsqueeze(axis) == places
        return torch.where(hot, on, off).to(storage)

    return run


def _non_zero(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
    def run(values: Values) -> Tensor:
        return torch.nonzero(values["x"]).to(torch.int32)

    return run


DEFINITIONS = (
    OpDef(
        kind="fill", params=(tensor("shape", INTEGER), setting("value")), bind=_fill, result=None
    ),
    OpDef(
        kind="fill_like",
        since=6,
        params=(tensor("ref_tensor"), setting("value")),
        bind=_fill_like,
        result=None,
    ),
    OpDef(
        kind="range_1d",
        params=(tensor("start", NUMBER), tensor("end", NUMBER), tensor("step", NUMBER)),
        bind=_range_1d,
        result="start",
    ),
    OpDef(
        kind="one_hot",
        params=(
            tensor("indices", INTEGER),
            tensor("one_hot_vector_size", INT32),
            setting("axis"),
            setting("on_value"),
            setting("off_value"),
        ),
        bind=_one_hot,
        result=None,
    ),
    OpDef(kind="non_zero", params=(tensor("x", ANY),), bind=_non_zero, result=DType.INT32),
)
