"""Matrix products (iOS 15 and iOS 17 `linear`) and fused attention (iOS 18 `transformers`)."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.linear import linear
from validation.runtimes.ml_program.op import (
    BOOL,
    FLOAT,
    NUMBER,
    Kernel,
    OpDef,
    maybe,
    required,
    setting,
    tensor,
    tensors,
)
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import Local, OpView, Unsupported


def _linear(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
    def run(values: Values) -> Tensor:
        return linear(values["x"], values["weight"], values.get("bias"))

    return run


def _matmul(view: OpView) -> Kernel:
    transpose_x, transpose_y = view.flag("transpose_x"), view.flag("transpose_y")
    # Where types differ (iOS 17), the one computed at run time decides.
    running = [name for name in ("x", "y") if isinstance(view.bound[name][0], Local)]
    wanted = view.dtype(running[0] if running else "x")
    if view.output().dtype is not wanted:
        raise Unsupported(f"its result is declared {view.output().dtype.value}, not {wanted.value}")

    def run(values: Values) -> Tensor:
        x, y = values["x"], values["y"]
        if transpose_x and x.dim() > 1:
            x = x.transpose(-1, -2)
        if transpose_y and y.dim() > 1:
            y = y.transpose(-1, -2)
        return torch.matmul(x, y)

    return run


def _einsum(view: OpView) -> Kernel:
    equation = view.string("equation")
    if re.fullmatch(r"[a-zA-Z]+,[a-zA-Z]+->[a-zA-Z]+", equation) is None:
        raise Unsupported(f"equation '{equation}' is no product of two tensors")

    def run(values: Values) -> Tensor:
        return torch.einsum(equation, *values.many("values"))

    return run


def _attention(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
    def run(values: Values) -> Tensor:
        return F.scaled_dot_product_attention(
            values["query"], values["key"], values["value"], attn_mask=values.get("attn_mask")
        )

    return run


DEFINITIONS = (
    OpDef(
        kind="linear",
        params=(tensor("x", NUMBER), tensor("weight", NUMBER), maybe("bias", NUMBER)),
        bind=_linear,
    ),
    OpDef(
        kind="matmul",
        params=(
            tensor("x", NUMBER),
            tensor("y", NUMBER),
            setting("transpose_x"),
            setting("transpose_y"),
        ),
        bind=_matmul,
        result=None,
    ),
    OpDef(
        kind="einsum",
        params=(tensors("values", FLOAT), required("equation")),
        bind=_einsum,
        result="values",
    ),
    OpDef(
        kind="scaled_dot_product_attention",
        since=8,
        params=(
            tensor("query", FLOAT),
            tensor("key", FLOAT),
            tensor("value", FLOAT),
            maybe("attn_mask", FLOAT | BOOL),
        ),
        bind=_attention,
        result="query",
    ),
)
