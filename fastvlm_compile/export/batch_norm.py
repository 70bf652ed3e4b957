"""Folding a BatchNorm into the convolution before it."""

from collections.abc import Callable

import torch
from torch import Tensor

BATCH_NORM_EPS = 1e-5
"""PyTorch's default, with which FastViTHD was trained."""


def fold_batch_norm(read: Callable[[str], Tensor], prefix: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution that computes `<prefix>.bn(<prefix>.conv(x))`.

    bn(y) = (y - mean) / sqrt(var + eps) * gamma + beta, per output channel.

    Args:
        read: returns a tensor by name, in any float type.
        prefix: of a `ConvNorm` module.

    Returns:
        Weight [C, 1, K, K] and bias [C] in float32, computed in float64 so that folding adds no
        rounding of its own.
    """

    def part(name: str) -> Tensor:
        return read(f"{prefix}.{name}").to(torch.float64)

    scale = part("bn.weight") / torch.sqrt(part("bn.running_var") + BATCH_NORM_EPS)
    weight = part("conv.weight") * scale[:, None, None, None]
    bias = part("bn.bias") - part("bn.running_mean") * scale
    return weight.to(torch.float32), bias.to(torch.float32)
