"""Pooling in one, two and three dimensions (iOS 15 `pool`).

`l2_pool` is refused: what it computes is not said anywhere.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from validation.runtimes.ml_program.op import (
    FLOAT,
    Kernel,
    OpDef,
    required,
    setting,
    tensor,
)
from validation.runtimes.ml_program.ops.padding import WindowPadding, pad_spatial, symmetric
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class _Window:
    """Attributes that both poolings have."""

    def __init__(self, view: OpView) -> None:
        self.spatial = view.rank("x") - 2
        if self.spatial not in _MAX:
            raise Unsupported(f"its input has rank {view.rank('x')}")
        self.sizes = view.integers("kernel_sizes")
        self.strides = view.integers("strides", (1,) * self.spatial)
        for name, given in (("kernel_sizes", self.sizes), ("strides", self.strides)):
            if len(given) != self.spatial or min(given) < 1:
                raise Unsupported(f"{name} {given} do not fit {self.spatial} spatial dimensions")
        self.ceil = view.flag("ceil_mode")
        self.padding = WindowPadding(view, spatial=self.spatial, strides=self.strides)

    def native_padding(self, pairs: list[tuple[int, int]]) -> list[int] | None:
        """torch's own padding where it allows it: alike on both sides, at most half a window."""
        even = symmetric(pairs)
        if even is None or any(2 * pad > size for pad, size in zip(even, self.sizes, strict=True)):
            return None
        return even


def _max_pool(view: OpView) -> Kernel:
    window = _Window(view)
    pool = _MAX[window.spatial]

    def run(values: Values) -> Tensor:
        x = values["x"]
        pairs = window.padding.pairs(x.shape[2:], window.sizes)
        even = window.native_padding(pairs)
        if even is None:
            x = pad_spatial(x, pairs, float("-inf"))
        found = pool(x, window.sizes, window.strides, padding=even or 0, ceil_mode=window.ceil)
        assert isinstance(found, Tensor)
        return found

    return run


def _avg_pool(view: OpView) -> Kernel:
    window = _Window(view)
    pool = _AVERAGE[window.spatial]
    exclude = view.flag("exclude_padding_from_average")

    def average(x: Tensor, padding: list[int] | int) -> Tensor:
        found = pool(
            x,
            window.sizes,
            window.strides,
            padding=padding,
            ceil_mode=window.ceil,
            count_include_pad=not exclude,
        )
        assert isinstance(found, Tensor)
        return found

    def run(values: Values) -> Tensor:
        x = values["x"]
        pairs = window.padding.pairs(x.shape[2:], window.sizes)
        even = window.native_padding(pairs)
        if even is not None:
            return average(x, even)
        found = average(pad_spatial(x, pairs, 0.0), 0)
        if not exclude:
            return found
        counted = pad_spatial(torch.ones_like(x[:1, :1]), pairs, 0.0)
        return found / average(counted, 0)

    return run


_PARAMS = (
    tensor("x", FLOAT),
    required("kernel_sizes"),
    setting("strides"),
    required("pad_type"),
    setting("pad"),
    setting("ceil_mode"),
)

DEFINITIONS = (
    OpDef(kind="max_pool", params=_PARAMS, bind=_max_pool, exact=True),
    OpDef(
        kind="avg_pool",
        params=(*_PARAMS, setting("exclude_padding_from_average")),
        bind=_avg_pool,
    ),
)
