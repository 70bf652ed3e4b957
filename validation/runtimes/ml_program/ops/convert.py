"""Conversions between element types (`cast`, iOS 17 `quantize` and `dequantize`)."""

import numpy as np
import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    ANY,
    FLOAT,
    Kernel,
    OpDef,
    required,
    setting,
    tensor,
)
from validation.runtimes.ml_program.tensors import store_as
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported

_BYTES = frozenset((DType.INT8, DType.UINT8))
_TARGETS = ("fp16", "fp32", "int32", "bool")
_TARGETS_IOS17 = (*_TARGETS, "int8", "uint8", "int16", "uint16")


def _cast(view: OpView) -> Kernel:
    wanted = DType(view.text("dtype", _TARGETS_IOS17 if view.opset >= 7 else _TARGETS, ""))
    if view.output().dtype is not wanted:
        raise Unsupported(f"its result is declared {view.output().dtype.value}, not {wanted.value}")

    def run(values: Values) -> Tensor:
        return store_as(values["x"], wanted)  # towards zero; zero is False

    return run


class _Scale:
    """`scale` and `zero_point`, scalars or vectors along `axis`, ready to broadcast."""

    def __init__(self, view: OpView) -> None:
        rank = view.rank("input")
        axis = view.integer("axis") % rank if view.has("axis") else None

        def along_axis(name: str) -> Tensor:
            found = view.array(name)
            vector = np.zeros(1) if found is None else found.reshape(-1)
            if vector.size != 1 and axis is None:
                raise Unsupported(f"{name} is a vector but no axis is given")
            shape = [-1 if i == axis else 1 for i in range(rank)] if vector.size != 1 else []
            return torch.from_numpy(vector.astype(np.float32)).reshape(shape)

        self.scale = along_axis("scale")
        self.zero_point = along_axis("zero_point")


def _quantize(view: OpView) -> Kernel:
    wanted = DType(view.text("output_dtype", ("int8", "uint8"), ""))
    if view.output().dtype is not wanted:
        raise Unsupported(f"its result is declared {view.output().dtype.value}, not {wanted.value}")
    low, high = (-128, 127) if wanted is DType.INT8 else (0, 255)
    by = _Scale(view)

    def run(values: Values) -> Tensor:
        levels = torch.round(values["input"] / by.scale) + by.zero_point
        return store_as(levels.clamp(low, high), wanted)

    return run


def _dequantize(view: OpView) -> Kernel:
    by = _Scale(view)

    def run(values: Values) -> Tensor:
        return (values["input"].to(torch.float32) - by.zero_point) * by.scale

    return run


_SCALING = (required("scale"), setting("zero_point"), setting("axis"))

DEFINITIONS = (
    OpDef(
        kind="cast",
        params=(tensor("x", ANY), required("dtype")),
        bind=_cast,
        result=None,
        aliases=("x",),
    ),
    OpDef(
        kind="quantize",
        since=7,
        params=(tensor("input", FLOAT), *_SCALING, required("output_dtype")),
        bind=_quantize,
        result=None,
    ),
    OpDef(
        kind="dequantize",
        since=7,
        params=(tensor("input", _BYTES), *_SCALING),
        bind=_dequantize,
        result="scale",
    ),
)
