"""Building blocks of vision and language models, as people write them in torch."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class RMSNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of an image, as in FastViTHD."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        normal = (x - mean) / torch.sqrt(variance + 1e-5)
        return self.weight[:, None, None] * normal + self.bias[:, None, None]


class SelfAttention(nn.Module):
    """Multi-head attention with grouped keys and values, rotary positions and a causal mask."""

    def __init__(self, *, size: int = 32, heads: int = 4, kv_heads: int = 2, fused: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim, self.fused = heads, kv_heads, size // heads, fused
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, kv_heads * self.dim)
        self.value = nn.Linear(size, kv_heads * self.dim)
        self.out = nn.Linear(size, size, bias=False)
        self.register_buffer("mask", torch.triu(torch.full((16, 16), -1e4), 1))
        angle = torch.arange(16)[:, None] / 100 ** (torch.arange(self.dim // 2) / (self.dim // 2))
        self.register_buffer("cos", torch.cos(torch.cat([angle, angle], -1)))
        self.register_buffer("sin", torch.sin(torch.cat([angle, angle], -1)))

    def rotate(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        turned = torch.cat([-right, left], -1)
        length = x.shape[2]
        return x * self.cos[:length] + turned * self.sin[:length]

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query = self.query(x).view(batch, length, self.heads, self.dim).transpose(1, 2)
        key = self.key(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        value = self.value(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        query, key = self.rotate(query), self.rotate(key)
        repeat = self.heads // self.kv_heads
        key = key[:, :, None].expand(-1, -1, repeat, -1, -1).reshape(query.shape)
        value = value[:, :, None].expand(-1, -1, repeat, -1, -1).reshape(query.shape)
        mask = self.mask[:length, :length]
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            scores = query @ key.transpose(-1, -2) / math.sqrt(self.dim) + mask
            mixed = torch.softmax(scores, -1) @ value
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


class SwiGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(32, 48), nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class DecoderBlock(nn.Module):
    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.first, self.second = RMSNorm(32), RMSNorm(32)
        self.attention, self.mlp = SelfAttention(fused=fused), SwiGLU()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.blocks = nn.Sequential(DecoderBlock(fused=True), DecoderBlock(fused=False))
        self.norm = RMSNorm(32)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.norm(self.blocks(self.embed(ids))), self.embed.weight)


class ConvNeXtBlock(nn.Module):
    def __init__(self, *, norm: nn.Module) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = norm
        self.up, self.down = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 8, 1)
        self.scale = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(F.gelu(self.up(self.norm(self.depthwise(x)))))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(gate))


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU6(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False),
            nn.BatchNorm2d(24),
            nn.Hardswish(),
            nn.Conv2d(24, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class UNetStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([x, self.up(F.relu(self.down(x)))], 1))


class PatchEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(8, 32, 3, stride=3)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.position
