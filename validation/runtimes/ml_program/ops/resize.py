"""Resizing of the last dimensions (iOS 15, 16 and 17 `image_resizing`).

Interpolation is separable: each dimension is resized on its own from the grid of points that the
sampling mode defines (op documentation of `resize_bilinear` and `upsample_bilinear`).
`crop_resize` is refused: the documentation does not pin down where its grid lies in a box.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    FLOAT,
    NUMBER,
    Kernel,
    OpDef,
    required,
    setting,
    tensor,
)
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported

_MODES = (
    "STRICT_ALIGN_CORNERS",
    "ALIGN_CORNERS",
    "DEFAULT",
    "OFFSET_CORNERS",
    "UNALIGN_CORNERS",
)


def grid(mode: str, size: int, wanted: int) -> Tensor:
    """Where each of `wanted` output points lies in an input of `size` points (float64)."""
    point = torch.arange(wanted, dtype=torch.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if wanted > 1:
            found = point * ((size - 1) / (wanted - 1))
        else:
            found = point + ((size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0)
    elif mode == "DEFAULT":
        found = point * (size / wanted)
    elif mode == "OFFSET_CORNERS":
        found = (point + 0.5) * (max(1, size - 1) / wanted)
    else:
        found = (point + 0.5) * (size / wanted) - 0.5
    return found.clamp(0, size - 1)


def linear(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """`x` interpolated at `points` along `axis`."""
    below = points.floor().to(torch.int64)
    above = (below + 1).clamp(max=x.shape[axis] - 1)
    share = (points - below).to(x.dtype)
    shape = [-1 if i == axis % x.dim() else 1 for i in range(x.dim())]
    low = x.index_select(axis, below)
    return torch.lerp(low, x.index_select(axis, above), share.reshape(shape).expand(low.shape))


def nearest(x: Tensor, axis: int, wanted: int) -> Tensor:
    """`x` at the input points at or before those of the "DEFAULT" grid."""
    size = x.shape[axis]
    if wanted == size:
        return x
    return x.index_select(axis, torch.arange(wanted) * size // wanted)


def _bilinear(x: Tensor, sizes: dict[int, int], mode: str) -> Tensor:
    for axis, wanted in sizes.items():
        if wanted != x.shape[axis] or mode == "OFFSET_CORNERS":
            x = linear(x, axis, grid(mode, x.shape[axis], wanted))
    return x


def _scaled(view: OpView) -> Callable[[Tensor], dict[int, int]]:
    height = view.number("scale_factor_height", 1.0)
    width = view.number("scale_factor_width", 1.0)

    def sizes(x: Tensor) -> dict[int, int]:
        rows, columns = x.shape[-2:]
        return {-2: _floor(rows * height), -1: _floor(columns * width)}

    return sizes


def _floor(size: float) -> int:
    # A scale such as 7/3 is stored in float32: 3 * it may fall short of 7 by its rounding error.
    return math.floor(size + 1e-5)


def _upsample_bilinear(view: OpView) -> Kernel:
    sizes = _scaled(view)
    align = view.flag("align_corners", default=True)
    half_pixel = view.flag("half_pixel_centers", default=not align)
    if align and half_pixel:
        raise Unsupported("align_corners together with half_pixel_centers")
    mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS" if half_pixel else "DEFAULT"

    def run(values: Values) -> Tensor:
        x = values["x"]
        return _bilinear(x, sizes(x), mode)

    return run


def _upsample_nearest(view: OpView) -> Kernel:
    sizes = _scaled(view)

    def run(values: Values) -> Tensor:
        x = values["x"]
        for axis, wanted in sizes(x).items():
            x = nearest(x, axis, wanted)
        return x

    return run


def _targets(view: OpView) -> dict[int, int]:
    return {-2: view.integer("target_size_height", 1), -1: view.integer("target_size_width", 1)}


def _resize_bilinear(view: OpView) -> Kernel:
    sizes, mode = _targets(view), view.text("sampling_mode", _MODES, "DEFAULT")

    def run(values: Values) -> Tensor:
        return _bilinear(values["x"], sizes, mode)

    return run


def _resize_nearest(view: OpView) -> Kernel:
    sizes = _targets(view)

    def run(values: Values) -> Tensor:
        x = values["x"]
        for axis, wanted in sizes.items():
            x = nearest(x, axis, wanted)
        return x

    return run


def _resize(view: OpView) -> Kernel:
    shape, count = view.running_integers("shape"), view.integer("resized_dims")
    mode = view.text("sampling_mode", _MODES, "DEFAULT")
    by_nearest = (
        view.text("interpolation_mode", ("LINEAR", "NEAREST_NEIGHBOR"), "LINEAR") != "LINEAR"
    )
    if by_nearest and mode != "DEFAULT":
        raise Unsupported(f"NEAREST_NEIGHBOR with sampling_mode {mode}")
    if view.dtype("x") is DType.INT32 and not by_nearest:
        raise Unsupported("linear interpolation of integers")

    def run(values: Values) -> Tensor:
        x = values["x"]
        wanted = shape(values)
        sizes = {axis: wanted[axis] or x.shape[axis] for axis in range(-count, 0)}
        if not by_nearest:
            return _bilinear(x, sizes, mode)
        for axis, size in sizes.items():
            x = nearest(x, axis, size)
        return x

    return run


_X = tensor("x", FLOAT)
_SCALES = (setting("scale_factor_height"), setting("scale_factor_width"))
_TARGETS = (setting("target_size_height"), setting("target_size_width"))

DEFINITIONS = (
    OpDef(
        kind="upsample_bilinear",
        params=(_X, *_SCALES, setting("align_corners")),
        bind=_upsample_bilinear,
        aliases=("x",),
    ),
    OpDef(
        kind="upsample_bilinear",
        since=6,
        params=(_X, *_SCALES, setting("align_corners"), setting("half_pixel_centers")),
        bind=_upsample_bilinear,
        aliases=("x",),
    ),
    OpDef(
        kind="upsample_nearest_neighbor",
        params=(_X, *_SCALES),
        bind=_upsample_nearest,
        exact=True,
        aliases=("x",),
    ),
    OpDef(
        kind="resize_bilinear",
        params=(_X, *_TARGETS, setting("sampling_mode")),
        bind=_resize_bilinear,
        aliases=("x",),
    ),
    OpDef(
        kind="resize_nearest_neighbor",
        params=(_X, *_TARGETS),
        bind=_resize_nearest,
        exact=True,
        aliases=("x",),
    ),
    OpDef(
        kind="resize",
        since=7,
        params=(
            tensor("x", NUMBER),
            tensor("shape"),
            required("resized_dims"),
            setting("interpolation_mode"),
            setting("sampling_mode"),
        ),
        bind=_resize,
        aliases=("x",),
    ),
)
