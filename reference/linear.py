"""Linear layers by oneDNN where PyTorch has it: for a few to a few hundred rows, in float32 on a
CPU, it takes two fifths to nine tenths of the time of the BLAS behind `torch.nn.functional.linear`
(`benchmarks/linear.md`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Builds for macOS lack it."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: [..., K] and [N, K] -> [..., N].

    oneDNN has no gradients, and exporters do not know it: without inference mode, and for anything
    but float32 on a CPU, this is `torch.nn.functional.linear`.
    """
    if HAS_ONEDNN and torch.is_inference_mode_enabled() and _plain(x) and _plain(weight):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the parameter's name there
        """[..., K] -> [..., N]."""
        return linear(input, self.weight, self.bias)


def _plain(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
