"""Activations (iOS 15 and iOS 17 `activation`)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from validation.runtimes.ml_program.op import (
    FLOAT,
    Kernel,
    OpDef,
    Param,
    required,
    setting,
    tensor,
)
from validation.runtimes.ml_program.ops.unary import apply
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported

_Parametric = Callable[[Tensor, float, float], Tensor]


def _with_alpha_beta(function: _Parametric) -> Callable[[OpView], Kernel]:
    def bind(view: OpView) -> Kernel:
        alpha, beta = view.number("alpha", 1.0), view.number("beta", 0.0)

        def run(values: Values) -> Tensor:
            return function(values["x"], alpha, beta)

        return run

    return bind


def _clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    return F.leaky_relu(x, alpha).clamp(max=beta)


def _elu(x: Tensor, alpha: float, _: float) -> Tensor:
    return F.elu(x, alpha)


def _leaky_relu(x: Tensor, alpha: float, _: float) -> Tensor:
    return F.leaky_relu(x, alpha)


def _linear(x: Tensor, alpha: float, beta: float) -> Tensor:
    return x * alpha + beta


def _scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * x)


def _sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0.0, 1.0)


def _thresholded_relu(x: Tensor, alpha: float, _: float) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


_ALPHA: dict[str, _Parametric] = {
    "elu": _elu,
    "leaky_relu": _leaky_relu,
    "thresholded_relu": _thresholded_relu,
}
_ALPHA_BETA: dict[str, _Parametric] = {
    "clamped_relu": _clamped_relu,
    "linear_activation": _linear,
    "scaled_tanh": _scaled_tanh,
    "sigmoid_hard": _sigmoid_hard,
}
_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "softsign": F.softsign,
}
_PLAIN_EXACT: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "relu6": F.relu6}


def _gelu(view: OpView) -> Kernel:
    modes = ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")
    mode = view.text("mode", modes, "EXACT")

    def run(values: Values) -> Tensor:
        x = values["x"]
        if mode == "SIGMOID_APPROXIMATION":
            return x * torch.sigmoid(1.702 * x)
        return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")

    return run


def _softmax(view: OpView) -> Kernel:
    axis = view.integer("axis", -1)

    def run(values: Values) -> Tensor:
        return torch.softmax(values["x"], dim=axis)

    return run


def _per_channel(vector: Tensor, x: Tensor) -> Tensor:
    return vector.reshape([-1 if axis == 1 else 1 for axis in range(x.dim())])


def _prelu(view: OpView) -> Kernel:
    if view.rank("x") < 3:
        raise Unsupported("its input has no channels")

    def run(values: Values) -> Tensor:
        return F.prelu(values["x"], values["alpha"])

    return run


def _softplus_parametric(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
    def run(values: Values) -> Tensor:
        x = values["x"]
        return _per_channel(values["alpha"], x) * F.softplus(_per_channel(values["beta"], x) * x)

    return run


_X: tuple[Param, ...] = (tensor("x", FLOAT),)

DEFINITIONS = (
    *(OpDef(kind=kind, params=_X, bind=apply(f)) for kind, f in _PLAIN.items()),
    *(OpDef(kind=kind, params=_X, bind=apply(f), exact=True) for kind, f in _PLAIN_EXACT.items()),
    *(
        OpDef(kind=kind, params=(*_X, required("alpha")), bind=_with_alpha_beta(f))
        for kind, f in _ALPHA.items()
    ),
    *(
        OpDef(
            kind=kind, params=(*_X, required("alpha"), required("beta")), bind=_with_alpha_beta(f)
        )
        for kind, f in _ALPHA_BETA.items()
    ),
    OpDef(kind="gelu", params=(*_X, setting("mode")), bind=_gelu),
    OpDef(kind="softmax", params=(*_X, setting("axis")), bind=_softmax),
    OpDef(kind="prelu", params=(*_X, tensor("alpha", FLOAT)), bind=_prelu),
    OpDef(
        kind="softplus_parametric",
        params=(*_X, tensor("alpha", FLOAT), tensor("beta", FLOAT)),
        bind=_softplus_parametric,
    ),
)
