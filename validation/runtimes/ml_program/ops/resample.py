"""Sampling an image at given coordinates (iOS 15 `resample`, `affine`)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from validation.runtimes.ml_program.op import (
    FLOAT,
    INTEGER,
    Kernel,
    OpDef,
    required,
    tensor,
)
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported

_ZERO, _ONE, _PIXELS = "normalized_zero_to_one", "normalized_minus_one_to_one", "unnormalized"


def _resample(view: OpView) -> Kernel:
    sampling = view.text("sampling_mode", ("bilinear", "nearest"), "bilinear")
    padding = view.text("padding_mode", ("constant", "border", "reflection", "symmetric"), "")
    coordinates = view.text("coordinates_mode", (_PIXELS, _ONE, _ZERO), _ONE)
    fill = view.number("padding_value", 0.0)
    corners = view.flag("align_corners") or coordinates == _PIXELS
    # torch reflects about pixel centers with align_corners and about pixel edges without it.
    if padding in ("reflection", "symmetric") and corners != (padding == "reflection"):
        raise Unsupported(f"padding_mode {padding} with align_corners {corners}")
    mode = {"constant": "zeros", "border": "border"}.get(padding, "reflection")

    def run(values: Values) -> Tensor:
        x = values["x"]
        where = values["coordinates"].to(x.dtype)
        if coordinates == _PIXELS:
            last = torch.tensor([x.shape[-1] - 1, x.shape[-2] - 1], dtype=x.dtype)
            where = 2 * where / last.clamp(min=1) - 1
        elif coordinates == _ZERO:
            where = 2 * where - 1
        shift = fill if padding == "constant" else 0.0
        found = F.grid_sample(
            x - shift, where, mode=sampling, padding_mode=mode, align_corners=corners
        )
        return found + shift

    return run


def _affine(view: OpView) -> Kernel:
    rows, columns = view.integer("output_height"), view.integer("output_width")
    view.text("sampling_mode", ("bilinear",), "bilinear")
    view.text("padding_mode", ("constant",), "constant")
    view.text("coordinates_mode", (_ONE,), _ONE)
    if view.number("padding_value", 0.0) != 0.0 or not view.flag("align_corners"):
        raise Unsupported("a padding_value, or align_corners False")

    def run(values: Values) -> Tensor:
        x = values["x"]
        matrix = values["transform_matrix"].reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
        size = [x.shape[0], x.shape[1], rows, columns]
        where = F.affine_grid(matrix, size, align_corners=True)
        return F.grid_sample(x, where, padding_mode="zeros", align_corners=True)

    return run


_HOW = tuple(
    required(name)
    for name in (
        "sampling_mode",
        "padding_mode",
        "padding_value",
        "coordinates_mode",
        "align_corners",
    )
)

DEFINITIONS = (
    OpDef(
        kind="resample",
        params=(tensor("x", FLOAT), tensor("coordinates", FLOAT | INTEGER), *_HOW),
        bind=_resample,
    ),
    OpDef(
        kind="affine",
        params=(
            tensor("x", FLOAT),
            tensor("transform_matrix", FLOAT),
            required("output_height"),
            required("output_width"),
            *_HOW,
        ),
        bind=_affine,
    ),
)
