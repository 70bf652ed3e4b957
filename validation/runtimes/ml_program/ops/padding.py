"""Paddings of convolution and pooling windows."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from validation.runtimes.ml_program.view import OpView, Unsupported

PAD_TYPES = ("valid", "same", "same_lower", "custom")


class WindowPadding:
    """How much to pad before and after each spatial dimension.

    `same` makes the output ceil(input / stride) long; what is odd goes behind, with `same_lower`
    before (coremltools `aggregated_pad`, which follows TensorFlow).
    """

    def __init__(self, view: OpView, *, spatial: int, strides: Sequence[int]) -> None:
        """Read `pad_type` and `pad`.

        Raises:
            Unsupported: an unknown type, or paddings of the wrong number or sign.
        """
        self._kind = view.text("pad_type", PAD_TYPES, "valid")
        if self._kind == "same_lower" and view.opset < 6:
            raise Unsupported("pad_type 'same_lower' comes with opset CoreML6")
        self._custom = view.integers("pad", (0,) * (2 * spatial))
        self._strides = strides
        if self._kind == "custom" and (len(self._custom) != 2 * spatial or min(self._custom) < 0):
            raise Unsupported(f"pad {self._custom} does not fit {spatial} spatial dimensions")

    def pairs(self, sizes: Sequence[int], windows: Sequence[int]) -> list[tuple[int, int]]:
        """(before, after) per spatial dimension.

        Args:
            sizes: spatial input sizes.
            windows: spatial extents of the (dilated) kernel.
        """
        if self._kind == "valid":
            return [(0, 0)] * len(sizes)
        if self._kind == "custom":
            return list(zip(self._custom[::2], self._custom[1::2], strict=True))
        found = []
        for size, window, stride in zip(sizes, windows, self._strides, strict=True):
            total = max(0, (math.ceil(size / stride) - 1) * stride + window - size)
            small, large = total // 2, total - total // 2
            found.append((small, large) if self._kind == "same" else (large, small))
        return found


def pad_spatial(x: Tensor, pairs: Sequence[tuple[int, int]], value: float) -> Tensor:
    """`x` with its last dimensions padded."""
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def symmetric(pairs: Sequence[tuple[int, int]]) -> list[int] | None:
    """One amount per dimension where both sides are alike, else None."""
    if all(before == after for before, after in pairs):
        return [before for before, _ in pairs]
    return None
