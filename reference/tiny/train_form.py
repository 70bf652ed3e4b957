"""FastViTHD as it is trained, and the fold into the form that checkpoints hold.

Training puts a BatchNorm behind each convolution and gives RepMixer and the positional encodings
their identity branch; both are linear, so that they fold into one convolution (arXiv 2303.14189,
section 3.2). The feed-forward's own BatchNorm stays, as in Apple's files.
"""

import torch
from torch import Tensor, nn

from reference.fastvithd import FastViTHD, PositionalEncoding, RepMixer

_INITIAL_LAYER_SCALE = 0.5  # lively from the start: what a block computes must matter


class NormedConv(nn.Module):
    """BatchNorm(convolution(x)), plus x where `identity` is set."""

    def __init__(self, conv: nn.Conv2d, *, identity: bool) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, H/stride, W/stride]."""
        y: Tensor = self.bn(self.conv(x))
        return x + y if self.identity else y

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """One convolution that computes the same in evaluation mode."""
        conv, bn = self.conv, self.bn
        if bn.running_mean is None or bn.running_var is None or conv.bias is None:
            raise AssertionError("only convolutions with bias and tracked statistics are folded")
        scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        weight = conv.weight * scale[:, None, None, None]
        if self.identity:  # a depthwise kernel of the identity is one at its centre
            weight[:, 0, weight.shape[2] // 2, weight.shape[3] // 2] += 1.0
        plain = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            (weight.shape[2], weight.shape[3]),
            stride=(conv.stride[0], conv.stride[1]),
            padding=(weight.shape[2] // 2, weight.shape[3] // 2),
            groups=conv.groups,
        )
        plain.weight.copy_(weight)
        plain.bias.copy_((conv.bias - bn.running_mean) * scale + bn.bias)  # type: ignore[union-attr]
        return plain


def to_train_form(vision: FastViTHD) -> None:
    """Put the BatchNorms and identity branches into a fresh tower, in place."""
    for module in list(vision.modules()):
        identity = isinstance(module, (RepMixer, PositionalEncoding))
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and name in {"reparam_conv", "lkb_reparam"}:
                setattr(module, name, NormedConv(child, identity=identity))
    for name, parameter in vision.named_parameters():
        if "layer_scale" in name:
            nn.init.constant_(parameter, _INITIAL_LAYER_SCALE)


def fold(vision: FastViTHD) -> None:
    """Fold every `NormedConv` of a trained tower into one convolution, in place."""
    for module in list(vision.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NormedConv):
                setattr(module, name, child.folded())
