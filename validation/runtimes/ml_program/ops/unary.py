"""Functions of one tensor, element by element (iOS 15 `elementwise_unary`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    BOOL,
    FLOAT,
    NUMBER,
    Kernel,
    OpDef,
    required,
    setting,
    tensor,
)
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView

_FLOAT: dict[str, Callable[[Tensor], Tensor]] = {
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
# Results that are fp16 values wherever the input is one.
_FLOAT_EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "ceil": torch.ceil,
    "floor": torch.floor,
    "round": torch.round,  # half to even
}
_NUMBER_EXACT: dict[str, Callable[[Tensor], Tensor]] = {"abs": torch.abs, "sign": torch.sign}


def apply(function: Callable[[Tensor], Tensor]) -> Callable[[OpView], Kernel]:
    """A bind whose kernel is one function of `x`."""

    def bind(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
        def run(values: Values) -> Tensor:
            return function(values["x"])

        return run

    return bind


def _exp2(x: Tensor) -> Tensor:
    return torch.exp2(x).to(x.dtype)


def _clip(view: OpView) -> Kernel:
    low, high = view.number("alpha", 0.0), view.number("beta", 0.0)

    def run(values: Values) -> Tensor:
        return values["x"].clamp(low, high)

    return run


def _threshold(view: OpView) -> Kernel:
    low = view.number("alpha", 0.0)

    def run(values: Values) -> Tensor:
        x = values["x"]
        return x.clamp(min=low if x.is_floating_point() else int(low))

    return run


def _shifted(function: Callable[[Tensor], Tensor], default: float) -> Callable[[OpView], Kernel]:
    """`function(x + epsilon)`."""

    def bind(view: OpView) -> Kernel:
        epsilon = view.number("epsilon", default)

        def run(values: Values) -> Tensor:
            return function(values["x"] + epsilon)

        return run

    return bind


_X_EPSILON = (tensor("x", FLOAT), setting("epsilon"))

DEFINITIONS = (
    *(
        OpDef(kind=kind, params=(tensor("x", FLOAT),), bind=apply(function))
        for kind, function in _FLOAT.items()
    ),
    *(
        OpDef(kind=kind, params=(tensor("x", FLOAT),), bind=apply(function), exact=True)
        for kind, function in _FLOAT_EXACT.items()
    ),
    *(
        OpDef(kind=kind, params=(tensor("x", NUMBER),), bind=apply(function), exact=True)
        for kind, function in _NUMBER_EXACT.items()
    ),
    OpDef(kind="exp2", params=(tensor("x", NUMBER),), bind=apply(_exp2)),
    OpDef(kind="square", params=(tensor("x", NUMBER),), bind=apply(torch.square)),
    OpDef(kind="logical_not", params=(tensor("x", BOOL),), bind=apply(torch.logical_not)),
    OpDef(
        kind="clip", params=(tensor("x", FLOAT), required("alpha"), required("beta")), bind=_clip
    ),
    OpDef(kind="threshold", params=(tensor("x", NUMBER), required("alpha")), bind=_threshold),
    OpDef(kind="inverse", params=_X_EPSILON, bind=_shifted(torch.reciprocal, 1e-4)),
    OpDef(kind="log", params=_X_EPSILON, bind=_shifted(torch.log, 1e-45)),
    OpDef(kind="rsqrt", params=_X_EPSILON, bind=_shifted(torch.rsqrt, 1e-12)),
)
