"""Convolution and transposed convolution in one, two and three dimensions."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from validation.runtimes.ml_program.op import (
    FLOAT,
    Kernel,
    OpDef,
    maybe,
    setting,
    tensor,
)
from validation.runtimes.ml_program.ops.padding import WindowPadding, pad_spatial, symmetric
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class _Geometry:
    """Attributes that both convolutions have."""

    def __init__(self, view: OpView) -> None:
        self.spatial = view.rank("x") - 2
        if self.spatial not in _CONV:
            raise Unsupported(f"its input has rank {view.rank('x')}")
        ones = (1,) * self.spatial
        self.strides = view.integers("strides", ones)
        self.dilations = view.integers("dilations", ones)
        self.groups = view.integer("groups", 1)
        for name, given in (("strides", self.strides), ("dilations", self.dilations)):
            if len(given) != self.spatial or min(given) < 1:
                raise Unsupported(f"{name} {given} do not fit {self.spatial} spatial dimensions")

    def windows(self, weight: Tensor) -> list[int]:
        """Extents of the dilated kernel."""
        return [
            (size - 1) * step + 1
            for size, step in zip(weight.shape[2:], self.dilations, strict=True)
        ]


def _conv(view: OpView) -> Kernel:
    shape = _Geometry(view)
    padding = WindowPadding(view, spatial=shape.spatial, strides=shape.strides)
    conv = _CONV[shape.spatial]

    def run(values: Values) -> Tensor:
        x, weight = values["x"], values["weight"]
        pairs = padding.pairs(x.shape[2:], shape.windows(weight))
        even = symmetric(pairs)
        if even is None:
            x = pad_spatial(x, pairs, 0.0)
        return conv(
            x,
            weight,
            values.get("bias"),
            stride=shape.strides,
            padding=even or 0,
            dilation=shape.dilations,
            groups=shape.groups,
        )

    return run


def _conv_transpose(view: OpView) -> Kernel:
    shape = _Geometry(view)
    kind = view.text("pad_type", ("valid", "same", "custom"), "valid")
    custom = view.integers("pad", (0,) * (2 * shape.spatial))
    if len(custom) != 2 * shape.spatial or min(custom) < 0:
        raise Unsupported(f"pad {custom} does not fit {shape.spatial} spatial dimensions")
    output_shape = view.integers("output_shape")
    if output_shape and len(output_shape) != shape.spatial + 2:
        raise Unsupported(f"output_shape {output_shape} does not fit the input's rank")
    transpose = _TRANSPOSE[shape.spatial]

    def begin_and_size(index: int, size: int, window: int) -> tuple[int, int]:
        """Where the output starts in the unpadded result, and how long it is."""
        stride = shape.strides[index]
        before = after = 0
        if kind == "same":
            total = max(0, window - stride)
            before, after = total // 2, total - total // 2
        elif kind == "custom":
            before, after = custom[2 * index], custom[2 * index + 1]
        natural = (size - 1) * stride + window - before - after
        if kind == "same":
            natural = size * stride
        return before, output_shape[2 + index] if output_shape else natural

    def run(values: Values) -> Tensor:
        x, weight, bias = values["x"], values["weight"], values.get("bias")
        windows = shape.windows(weight)
        cut = [
            begin_and_size(index, size, window)
            for index, (size, window) in enumerate(zip(x.shape[2:], windows, strict=True))
        ]
        whole = transpose(
            x,
            weight,
            stride=shape.strides,
            dilation=shape.dilations,
            groups=shape.groups,
        )
        found = _window(whole, cut)
        if bias is None:
            return found
        return found + bias.reshape([-1] + [1] * shape.spatial)

    return run


def _window(whole: Tensor, cut: Sequence[tuple[int, int]]) -> Tensor:
    """(begin, size) of each spatial dimension; beyond the end there are zeros."""
    for index, (begin, size) in enumerate(cut):
        axis = index + 2
        missing = begin + size - whole.shape[axis]
        if missing > 0:
            pairs = [(0, missing if i == index else 0) for i in range(len(cut))]
            whole = pad_spatial(whole, pairs, 0.0)
        whole = whole.narrow(axis, begin, size)
    return whole


_SHARED = (
    tensor("x", FLOAT),
    tensor("weight", FLOAT),
    maybe("bias", FLOAT),
    setting("strides"),
    setting("pad_type"),
    setting("pad"),
    setting("dilations"),
    setting("groups"),
)

DEFINITIONS = (
    OpDef(kind="conv", params=_SHARED, bind=_conv),
    OpDef(
        kind="conv_transpose",
        params=(*_SHARED, setting("output_shape")),
        bind=_conv_transpose,
    ),
)
