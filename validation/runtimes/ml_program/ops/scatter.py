"""Ops that scatter updates into a tensor by index (iOS 15 and iOS 17 `scatter_gather`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    INTEGER,
    NUMBER,
    Kernel,
    OpDef,
    setting,
    tensor,
)
from validation.runtimes.ml_program.ops.gather import take, take_nd, valid_indices
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView

_MODES = ("update", "add", "sub", "mul", "div", "max", "min")


def _scatter_flat(data: Tensor, places: Tensor, updates: Tensor, mode: str) -> Tensor:
    """Combine `updates` with the elements of `data` at flat positions `places` (same shape).

    Of several updates to one place under "update", which one stays is undefined in MIL; the
    last one does here.
    """
    flat = data.reshape(-1).clone()
    where, new = places.reshape(-1), updates.reshape(-1)
    if mode == "update":
        flat[where] = new
    elif mode in ("add", "sub"):
        flat.index_add_(0, where, new, alpha=1 if mode == "add" else -1)
    elif mode == "mul":
        flat.scatter_reduce_(0, where, new, "prod")
    elif mode == "div":
        divisor = torch.ones_like(flat).scatter_reduce_(0, where, new, "prod")
        flat = flat / divisor if flat.is_floating_point() else flat // divisor
    else:
        flat.scatter_reduce_(0, where, new, "amax" if mode == "max" else "amin")
    return flat.reshape(data.shape)


def _positions(data: Tensor) -> Tensor:
    """The flat position of every element, in the shape of `data`."""
    return torch.arange(data.numel()).reshape(data.shape)


def _scatter(view: OpView) -> Kernel:
    axis = view.integer("axis", 0) % view.rank("data")
    mode, opset = view.text("mode", _MODES, "add"), view.opset

    def run(values: Values) -> Tensor:
        data = values["data"]
        indices = valid_indices(values["indices"], data.shape[axis], opset=opset)
        places = take(_positions(data), indices, axis, 0)
        return _scatter_flat(data, places, values["updates"], mode)

    return run


def _scatter_along_axis(view: OpView) -> Kernel:
    axis = view.integer("axis", 0) % view.rank("data")
    mode, opset = view.text("mode", _MODES, "add"), view.opset

    def run(values: Values) -> Tensor:
        data = values["data"]
        indices = valid_indices(values["indices"], data.shape[axis], opset=opset)
        places = _positions(data).gather(axis, indices)
        return _scatter_flat(data, places, values["updates"], mode)

    return run


def _scatter_nd(view: OpView) -> Kernel:
    mode, opset = view.text("mode", _MODES, "add"), view.opset

    def run(values: Values) -> Tensor:
        data = values["data"]
        places = take_nd(_positions(data), values["indices"], 0, opset=opset)
        return _scatter_flat(data, places, values["updates"], mode)

    return run


def _versions(kind: str, bind: Callable[[OpView], Kernel], *settings: str) -> tuple[OpDef, ...]:
    params = (
        tensor("data", NUMBER),
        tensor("indices", INTEGER),
        tensor("updates", NUMBER),
        setting("mode"),
        *(setting(name) for name in settings),
    )
    return (
        OpDef(kind=kind, params=params, bind=bind, result="data"),
        OpDef(
            kind=kind,
            since=7,
            params=(*params, setting("validate_indices")),
            bind=bind,
            result="data",
        ),
    )


DEFINITIONS = (
    *_versions("scatter", _scatter, "axis"),
    *_versions("scatter_along_axis", _scatter_along_axis, "axis"),
    *_versions("scatter_nd", _scatter_nd),
)
