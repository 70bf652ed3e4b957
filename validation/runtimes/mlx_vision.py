"""FastViTHD in MLX, at any depths and widths; names and shapes are those of mlx-vlm's tower.

mlx-vlm's own has the real sizes as constants, so a scaled-down tower cannot be loaded there.

Source: FastVLM (arXiv 2412.13303), section 3. Shape letters: B images, H and W the feature map's
sides, C channels, N = H * W. MLX has channels last everywhere.
"""

import mlx.core as mx
from mlx import nn

from reference.config import VisionConfig

NUM_STAGES = 5
FIRST_ATTENTION_STAGE = 3
SQUEEZE_RATIO = 16
LAYER_NORM_EPS = 1e-5


class FastViTHD(nn.Module):
    """Image to feature map: [B, S, S, 3] -> [B, S/64, S/64, C]."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        widths = config.widths
        self.patch_embed = Stem(widths[0])
        network: list[nn.Module | list[nn.Module]] = []
        for stage in range(NUM_STAGES):
            width = widths[stage]
            attention = stage >= FIRST_ATTENTION_STAGE
            if stage > 0:
                network.append(PatchEmbed(widths[stage - 1], width))
            if attention:
                network.append(Depthwise(width, kernel_size=7))
            hidden = config.mlp_ratio * width
            network.append(
                [
                    AttentionBlock(width, hidden, config.head_dim)
                    if attention
                    else RepMixerBlock(width, hidden)
                    for _ in range(config.depths[stage])
                ]
            )
        self.network = network
        self.conv_exp = Expand(widths[-1], config.out_channels)
        self.head = UnusedHead(config.out_channels, config.projection_dim)

    def __call__(self, images: mx.array) -> mx.array:
        """[B, S, S, 3] in 0..1 -> [B, S/64, S/64, C]."""
        x = self.patch_embed(images)
        for part in self.network:
            layers: list[nn.Module] = part if isinstance(part, list) else [part]
            for layer in layers:
                x = layer(x)
        return self.conv_exp(x)


class ConvGelu(nn.Module):
    """A convolution and the exact GELU."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel_size: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.reparam_conv = nn.Conv2d(
            inputs,
            outputs,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
        )

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, C] -> [B, H/stride, W/stride, outputs]."""
        return nn.gelu(self.reparam_conv(x))


class Stem(nn.Module):
    """Quarters the sides: 3x3 of stride 2, depthwise 3x3 of stride 2, 1x1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = [
            ConvGelu(3, width, kernel_size=3, stride=2),
            ConvGelu(width, width, kernel_size=3, stride=2, groups=width),
            ConvGelu(width, width, kernel_size=1),
        ]

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, 3] -> [B, H/4, W/4, width]."""
        for block in self.blocks:
            x = block(x)
        return x


class LargeKernelConv(nn.Module):
    """7x7 of stride 2, one group per input channel, then GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lkb_reparam = nn.Conv2d(inputs, outputs, 7, stride=2, padding=3, groups=inputs)

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, inputs] -> [B, H/2, W/2, outputs]."""
        return nn.gelu(self.lkb_reparam(x))


class PatchEmbed(nn.Module):
    """Halves the map and widens it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj: list[nn.Module] = [
            LargeKernelConv(inputs, outputs),
            ConvGelu(outputs, outputs, kernel_size=1),
        ]

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, inputs] -> [B, H/2, W/2, outputs]."""
        for layer in self.proj:
            x = layer(x)
        return x


class Depthwise(nn.Module):
    """Positional encoding (7x7) or RepMixer (3x3): a depthwise convolution, residual folded in."""

    def __init__(self, width: int, *, kernel_size: int) -> None:
        super().__init__()
        self.reparam_conv = nn.Conv2d(
            width, width, kernel_size, padding=kernel_size // 2, groups=width
        )

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, C] -> same."""
        return self.reparam_conv(x)


class RepMixerBlock(nn.Module):
    """RepMixer, then the feed-forward with a scaled residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.token_mixer = Depthwise(width, kernel_size=3)
        self.convffn = ConvFFN(width, hidden)
        self.layer_scale = mx.ones((1, 1, width))

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, C] -> same."""
        mixed = self.token_mixer(x)
        return mixed + self.layer_scale * self.convffn(mixed)


class AttentionBlock(nn.Module):
    """Pre-normalised attention over all positions, then the feed-forward."""

    def __init__(self, width: int, hidden: int, head_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.token_mixer = Attention(width, head_dim)
        self.convffn = ConvFFN(width, hidden)
        self.layer_scale_1 = mx.ones((1, 1, width))
        self.layer_scale_2 = mx.ones((1, 1, width))

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, C] -> same."""
        x = x + self.layer_scale_1 * self.token_mixer(self.norm(x))
        return x + self.layer_scale_2 * self.convffn(x)


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v have no bias, the output projection has one."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, C] -> same; positions are taken row by row."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, -1, self.head_dim)
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)  # each [B, heads, N, head_dim]
        mixed = mx.fast.scaled_dot_product_attention(query, key, value, scale=self.head_dim**-0.5)
        return self.proj(mixed.transpose(0, 2, 1, 3).reshape(batch, height, width, channels))


class ConvNorm(nn.Module):
    """Depthwise 7x7 without bias, and the BatchNorm that follows it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 7, padding=3, groups=width, bias=False)
        self.bn = nn.BatchNorm(width)

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, C] -> same."""
        return self.bn(self.conv(x))


class ConvFFN(nn.Module):
    """Depthwise 7x7 with BatchNorm, then a two-layer 1x1 feed-forward with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv = ConvNorm(width)
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, C] -> same."""
        return self.fc2(nn.gelu(self.fc1(self.conv(x))))


class Expand(nn.Module):
    """`conv_exp`: grouped 3x3 to twice the width, squeeze-and-excite, GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reparam_conv = nn.Conv2d(inputs, outputs, 3, padding=1, groups=inputs)
        self.se = SqueezeExcite(outputs)

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, inputs] -> [B, H, W, outputs]."""
        return nn.gelu(self.se(self.reparam_conv(x)))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // SQUEEZE_RATIO, 1)
        self.expand = nn.Conv2d(channels // SQUEEZE_RATIO, channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, C] -> same."""
        means = x.mean(axis=(1, 2), keepdims=True)
        return x * mx.sigmoid(self.expand(nn.relu(self.reduce(means))))


class UnusedHead(nn.Module):
    """MobileCLIP's projection: the file holds it, FastVLM reads the feature map before it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = mx.zeros((inputs, outputs))
