"""Functions of two tensors with broadcasting, and `select` (iOS 15 `elementwise_binary`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    ANY,
    BOOL,
    FLOAT,
    NUMBER,
    Kernel,
    OpDef,
    tensor,
)
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView

_Function = Callable[[Tensor, Tensor], Tensor]


def _floor_divide(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode="floor")


_NUMBER: dict[str, _Function] = {
    "add": torch.add,
    "floor_div": _floor_divide,
    "mod": torch.remainder,  # the sign of the divisor, as Python
    "mul": torch.mul,
    "pow": torch.pow,
    "sub": torch.sub,
}
_EXACT: dict[str, _Function] = {"maximum": torch.maximum, "minimum": torch.minimum}
_COMPARE: dict[str, _Function] = {
    "equal": torch.eq,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "not_equal": torch.ne,
}
_LOGICAL: dict[str, _Function] = {
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}


def _apply(function: _Function) -> Callable[[OpView], Kernel]:
    def bind(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
        def run(values: Values) -> Tensor:
            return function(values["x"], values["y"])

        return run

    return bind


def _select(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
    def run(values: Values) -> Tensor:
        return torch.where(values["cond"], values["a"], values["b"])

    return run


_NUMBERS = (tensor("x", NUMBER), tensor("y", NUMBER))
_COMPARED = (tensor("x", ANY), tensor("y", ANY))
_BOOLS = (tensor("x", BOOL), tensor("y", BOOL))

DEFINITIONS = (
    *(OpDef(kind=kind, params=_NUMBERS, bind=_apply(f)) for kind, f in _NUMBER.items()),
    *(OpDef(kind=kind, params=_NUMBERS, bind=_apply(f), exact=True) for kind, f in _EXACT.items()),
    # What dividing integers gives is not said anywhere: refused.
    OpDef(
        kind="real_div",
        params=(tensor("x", FLOAT), tensor("y", FLOAT)),
        bind=_apply(torch.true_divide),
    ),
    *(
        OpDef(kind=kind, params=_COMPARED, bind=_apply(f), result=DType.BOOL)
        for kind, f in _COMPARE.items()
    ),
    *(
        OpDef(kind=kind, params=_BOOLS, bind=_apply(f), result=DType.BOOL)
        for kind, f in _LOGICAL.items()
    ),
    OpDef(
        kind="select",
        params=(tensor("cond", BOOL), tensor("a"), tensor("b")),
        bind=_select,
        result="a",
        exact=True,
    ),
)
