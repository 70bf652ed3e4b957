"""Reductions (iOS 15 and iOS 17 `reduction`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    NUMBER,
    Kernel,
    OpDef,
    setting,
    tensor,
)
from validation.runtimes.ml_program.tensors import store_as
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported

# Function of a tensor, the axes to reduce and whether to keep them.
_Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001 - one of `_Reduce`
    for axis in sorted(axes, reverse=True):
        x = x.prod(dim=axis, keepdim=keep)
    return x


def _l1(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001 - one of `_Reduce`
    return x.abs().sum(dim=axes, keepdim=keep)


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001 - one of `_Reduce`
    return x.square().sum(dim=axes, keepdim=keep).sqrt()


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001 - one of `_Reduce`
    return x.sum(dim=axes, keepdim=keep).log()


def _sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001 - one of `_Reduce`
    return x.square().sum(dim=axes, keepdim=keep)


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001 - one of `_Reduce`
    return x.sum(dim=axes, keepdim=keep)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001 - one of `_Reduce`
    return x.mean(dim=axes, keepdim=keep)


_REDUCE: dict[str, _Reduce] = {
    "reduce_l1_norm": _l1,
    "reduce_l2_norm": _l2,
    "reduce_log_sum": _log_sum,
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_mean": _mean,
    "reduce_prod": _prod,
    "reduce_sum": _sum,
    "reduce_sum_square": _sum_square,
}
_EXTREME: dict[str, _Reduce] = {"reduce_max": torch.amax, "reduce_min": torch.amin}
_ARG: dict[str, Callable[..., Tensor]] = {
    "reduce_argmax": torch.argmax,
    "reduce_argmin": torch.argmin,
}


def _over_axes(reduce: _Reduce) -> Callable[[OpView], Kernel]:
    def bind(view: OpView) -> Kernel:
        rank = view.rank("x")
        axes = [axis % rank for axis in view.integers("axes", range(rank))]
        keep = view.flag("keep_dims")
        integer = view.dtype("x") is DType.INT32

        def run(values: Values) -> Tensor:
            x = values["x"]
            if not integer:
                return reduce(x, axes, keep)
            # Exact below 2**53; what is no integer is cut off, as a cast would.
            return reduce(x.double(), axes, keep).to(torch.int32)

        return run

    return bind


def _arg(function: Callable[..., Tensor]) -> Callable[[OpView], Kernel]:
    def bind(view: OpView) -> Kernel:
        axis, keep = view.integer("axis", -1), view.flag("keep_dims")
        wanted = DType(view.text("output_dtype", ("int32", "uint16"), "int32"))
        if view.output().dtype is not wanted:
            raise Unsupported(f"its result is declared {view.output().dtype.value}")

        def run(values: Values) -> Tensor:
            return store_as(function(values["x"], dim=axis, keepdim=keep), wanted)

        return run

    return bind


_AXES = (tensor("x", NUMBER), setting("axes"), setting("keep_dims"))
_AXIS = (tensor("x", NUMBER), setting("axis"), setting("keep_dims"))

DEFINITIONS = (
    *(OpDef(kind=kind, params=_AXES, bind=_over_axes(f)) for kind, f in _REDUCE.items()),
    *(
        OpDef(kind=kind, params=_AXES, bind=_over_axes(f), exact=True)
        for kind, f in _EXTREME.items()
    ),
    *(OpDef(kind=kind, params=_AXIS, bind=_arg(f), result=None) for kind, f in _ARG.items()),
    *(
        OpDef(
            kind=kind,
            since=7,
            params=(*_AXIS, setting("output_dtype")),
            bind=_arg(f),
            result=None,
        )
        for kind, f in _ARG.items()
    ),
)
