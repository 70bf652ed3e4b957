"""FastViTHD, the vision encoder of FastVLM, in its re-parameterised (inference) form.

Source: FastVLM (arXiv 2412.13303), section 3, and the tensor names of Apple's released
checkpoints, which the module names repeat so that a state dict loads without renaming.

Shape letters: B images, C channels, H and W the feature map's sides, N = H * W positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.config import VisionConfig
from reference.linear import Linear

NUM_STAGES = 5
FIRST_ATTENTION_STAGE = 3
LAYER_NORM_EPS = 1e-5
SQUEEZE_RATIO = 16


class FastViTHD(nn.Module):
    """Image to feature map: [B, 3, S, S] -> [B, out_channels, S/64, S/64].

    `network` interleaves stages with the downsamplings and positional encodings between them:
    indices 0, 2, 4, 7, 10 are stages, 1, 3, 5, 8 patch embeddings, 6 and 9 positional encodings.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        widths = config.widths
        first = widths[0]
        self.patch_embed = nn.ModuleList(
            [
                ConvGelu(3, first, kernel_size=3, stride=2),
                ConvGelu(first, first, kernel_size=3, stride=2, groups=first),
                ConvGelu(first, first, kernel_size=1),
            ]
        )
        network: list[nn.Module] = []
        for stage in range(NUM_STAGES):
            if stage > 0:
                network.append(PatchEmbed(widths[stage - 1], widths[stage]))
            if stage >= FIRST_ATTENTION_STAGE:
                network.append(PositionalEncoding(widths[stage]))
            network.append(make_stage(config, stage))
        self.network = nn.ModuleList(network)
        self.conv_exp = ExpandWithSqueezeExcite(widths[-1], config.out_channels)
        self.head = UnusedHead(config.out_channels, config.projection_dim)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, S, S] in 0..1 -> feature map [B, out_channels, S/64, S/64]."""
        x = pixel_values
        for layer in self.patch_embed:
            x = layer(x)
        for layer in self.network:
            x = layer(x)
        features: Tensor = self.conv_exp(x)
        return features


def make_stage(config: VisionConfig, stage: int) -> nn.Sequential:
    """The blocks of one stage, all of one width."""
    width = config.widths[stage]
    hidden = config.mlp_ratio * width
    if stage >= FIRST_ATTENTION_STAGE:
        return nn.Sequential(
            *(AttentionBlock(width, hidden, config.head_dim) for _ in range(config.depths[stage]))
        )
    return nn.Sequential(*(RepMixerBlock(width, hidden) for _ in range(config.depths[stage])))


class ConvGelu(nn.Module):
    """A re-parameterised convolution followed by the exact GELU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.reparam_conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, H/stride, W/stride]."""
        return F.gelu(self.reparam_conv(x))


class PatchEmbed(nn.Module):
    """Halves the map and widens it: grouped 7x7 of stride 2, GELU, 1x1, GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            LargeKernelConv(in_channels, out_channels),
            ConvGelu(out_channels, out_channels, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, H/2, W/2]."""
        y: Tensor = self.proj(x)
        return y


class LargeKernelConv(nn.Module):
    """7x7 convolution of stride 2, one group per input channel, then GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lkb_reparam = nn.Conv2d(
            in_channels, out_channels, 7, stride=2, padding=3, groups=in_channels
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, H/2, W/2]."""
        return F.gelu(self.lkb_reparam(x))


class PositionalEncoding(nn.Module):
    """Conditional positional encoding: a depthwise 7x7 with the identity already folded in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reparam_conv = nn.Conv2d(width, width, 7, padding=3, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        y: Tensor = self.reparam_conv(x)
        return y


class RepMixer(nn.Module):
    """Token mixing by a depthwise 3x3 that holds its own residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reparam_conv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        y: Tensor = self.reparam_conv(x)
        return y


class RepMixerBlock(nn.Module):
    """RepMixer, then a convolutional feed-forward with a scaled residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.token_mixer = RepMixer(width)
        self.convffn = ConvFFN(width, hidden)
        self.layer_scale = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        mixed: Tensor = self.token_mixer(x)
        out: Tensor = mixed + self.layer_scale * self.convffn(mixed)
        return out


class AttentionBlock(nn.Module):
    """Pre-normalised attention over all positions, then the convolutional feed-forward."""

    def __init__(self, width: int, hidden: int, head_dim: int) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(width)
        self.token_mixer = Attention(width, head_dim)
        self.convffn = ConvFFN(width, hidden)
        self.layer_scale_1 = nn.Parameter(torch.ones(width, 1, 1))
        self.layer_scale_2 = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        x = x + self.layer_scale_1 * self.token_mixer(self.norm(x))
        out: Tensor = x + self.layer_scale_2 * self.convffn(x)
        return out


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of an NCHW map, each position by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        channels_last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(channels_last, (x.shape[1],), self.weight, self.bias, LAYER_NORM_EPS)
        return normed.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v have no bias, the output projection has one."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.num_heads = width // head_dim
        self.qkv = Linear(width, 3 * width, bias=False)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same; positions are taken row by row."""
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # [B, N, C]
        qkv = self.qkv(tokens).reshape(batch, height * width, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, head_dim]
        mixed = F.scaled_dot_product_attention(query, key, value)
        tokens = self.proj(mixed.transpose(1, 2).reshape(batch, height * width, channels))
        out: Tensor = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        return out


class ConvFFN(nn.Module):
    """Depthwise 7x7 with BatchNorm, then a two-layer 1x1 feed-forward with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv = ConvNorm(width)
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        y: Tensor = self.fc2(F.gelu(self.fc1(self.conv(x))))
        return y


class ConvNorm(nn.Module):
    """Depthwise 7x7 without bias, and the BatchNorm that follows it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 7, padding=3, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        y: Tensor = self.bn(self.conv(x))
        return y


class ExpandWithSqueezeExcite(nn.Module):
    """`conv_exp`: grouped 3x3 to twice the width, squeeze-and-excite, GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reparam_conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=in_channels)
        self.se = SqueezeExcite(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, H, W]."""
        return F.gelu(self.se(self.reparam_conv(x)))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // SQUEEZE_RATIO
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        means = x.mean(dim=(2, 3), keepdim=True)
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(means))))
        return x * gate


class UnusedHead(nn.Module):
    """MobileCLIP's projection: the file holds it, FastVLM reads the feature map before it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.proj = nn.Parameter(torch.zeros(in_features, out_features))
