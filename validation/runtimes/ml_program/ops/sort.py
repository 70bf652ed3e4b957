"""Ops that sort (iOS 15, 16 and 17 `topk`, `argsort`). Of equal elements the first comes first."""

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import Kernel, OpDef, setting, tensor
from validation.runtimes.ml_program.tensors import store_as
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported


def _topk(view: OpView) -> Kernel:
    k, axis = view.integer("k", 1), view.integer("axis", -1)
    ascending = view.flag("ascending")
    with_indices = view.flag("return_indices", default=True)
    wanted = DType(view.text("output_indices_dtype", ("int32", "uint16"), "int32"))
    if view.num_outputs != (2 if with_indices else 1):
        raise Unsupported(f"it declares {view.num_outputs} results")
    if with_indices and view.output(1).dtype is not wanted:
        raise Unsupported(f"its indices are declared {view.output(1).dtype.value}")

    def run(values: Values) -> Tensor | tuple[Tensor, ...]:
        x = values["x"]
        found, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
        count = x.shape[axis] if k == -1 else k
        best = found.narrow(axis, 0, count)
        if not with_indices:
            return best
        return best, store_as(indices.narrow(axis, 0, count), wanted)

    return run


def _argsort(view: OpView) -> Kernel:
    axis, ascending = view.integer("axis", -1), view.flag("ascending")

    def run(values: Values) -> Tensor:
        order = torch.argsort(values["x"], dim=axis, descending=not ascending, stable=True)
        return order.to(torch.int32)

    return run


_BASE = (tensor("x"), setting("k"), setting("axis"), setting("ascending"))
_IOS16 = (*_BASE, setting("sort"), setting("return_indices"))

DEFINITIONS = (
    OpDef(kind="topk", params=_BASE, bind=_topk, exact=True),
    OpDef(kind="topk", since=6, params=_IOS16, bind=_topk, exact=True),
    OpDef(
        kind="topk",
        since=7,
        params=(*_IOS16, setting("output_indices_dtype")),
        bind=_topk,
        exact=True,
    ),
    OpDef(
        kind="argsort",
        params=(tensor("x"), setting("axis"), setting("ascending")),
        bind=_argsort,
        result=DType.INT32,
    ),
)
