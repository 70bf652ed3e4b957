"""Ops that move elements between channels, space and batch (iOS 15 `tensor_transformation`)."""

import torch.nn.functional as F
from torch import Tensor

from validation.runtimes.ml_program.op import FLOAT, Kernel, moves, required, tensor
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported


def _depth_to_space(view: OpView) -> Kernel:
    block = view.integer("block_size")

    def run(values: Values) -> Tensor:
        x = values["x"]
        batch, depth, rows, columns = x.shape
        # The block's position is the outer part of the channel number, unlike in pixel_shuffle.
        parts = x.reshape(batch, block, block, depth // block**2, rows, columns)
        moved = parts.permute(0, 3, 4, 1, 5, 2)
        return moved.reshape(batch, depth // block**2, rows * block, columns * block)

    return run


def _space_to_depth(view: OpView) -> Kernel:
    block = view.integer("block_size")

    def run(values: Values) -> Tensor:
        x = values["x"]
        batch, depth, rows, columns = x.shape
        parts = x.reshape(batch, depth, rows // block, block, columns // block, block)
        moved = parts.permute(0, 3, 5, 1, 2, 4)
        return moved.reshape(batch, depth * block**2, rows // block, columns // block)

    return run


def _pixel_shuffle(view: OpView) -> Kernel:
    factor = view.integer("upscale_factor")

    def run(values: Values) -> Tensor:
        return F.pixel_shuffle(values["x"], factor)

    return run


def _pixel_unshuffle(view: OpView) -> Kernel:
    factor = view.integer("downscale_factor")

    def run(values: Values) -> Tensor:
        return F.pixel_unshuffle(values["x"], factor)

    return run


def _blocks(view: OpView, borders: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Block shape, and [top, bottom, left, right] of what is padded or cropped."""
    block, amounts = view.integers("block_shape"), view.integers(borders)
    if len(block) != 2 or len(amounts) != 4:
        raise Unsupported(f"block_shape {block} and {borders} {amounts} are not two-dimensional")
    return block, amounts


def _space_to_batch(view: OpView) -> Kernel:
    (height, width), (top, bottom, left, right) = _blocks(view, "paddings")

    def run(values: Values) -> Tensor:
        x = F.pad(values["x"], (left, right, top, bottom))
        batch, depth, rows, columns = x.shape
        parts = x.reshape(batch, depth, rows // height, height, columns // width, width)
        moved = parts.permute(3, 5, 0, 1, 2, 4)
        return moved.reshape(batch * height * width, depth, rows // height, columns // width)

    return run


def _batch_to_space(view: OpView) -> Kernel:
    (height, width), (top, bottom, left, right) = _blocks(view, "crops")

    def run(values: Values) -> Tensor:
        x = values["x"]
        batch, depth, rows, columns = x.shape
        parts = x.reshape(height, width, batch // (height * width), depth, rows, columns)
        moved = parts.permute(2, 3, 4, 0, 5, 1)
        whole = moved.reshape(-1, depth, rows * height, columns * width)
        return whole[..., top : rows * height - bottom, left : columns * width - right]

    return run


_X = tensor("x", FLOAT)

DEFINITIONS = (
    moves("depth_to_space", (_X, required("block_size")), _depth_to_space),
    moves("space_to_depth", (_X, required("block_size")), _space_to_depth),
    moves("pixel_shuffle", (_X, required("upscale_factor")), _pixel_shuffle),
    moves("pixel_unshuffle", (_X, required("downscale_factor")), _pixel_unshuffle, since=6),
    moves("space_to_batch", (_X, required("block_shape"), required("paddings")), _space_to_batch),
    moves("batch_to_space", (_X, required("block_shape"), required("crops")), _batch_to_space),
)
