"""Ordinary torch modules that coremltools converts, with inputs to run them on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from ml_program_modules import (
    Call,
    ChannelNorm,
    ConvNeXtBlock,
    DecoderBlock,
    InvertedResidual,
    LanguageModel,
    PatchEmbedding,
    RMSNorm,
    SelfAttention,
    SqueezeExcite,
    SwiGLU,
    UNetStep,
)
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A module and inputs; `fast` ones run in the everyday suite."""

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    fast: bool = False

    def __str__(self) -> str:
        return self.name


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def trained(norm: nn.Module) -> nn.Module:
    """A BatchNorm with statistics, as after training."""
    for name, buffer in norm.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return norm


LINE, IMAGE, VOLUME = normal(2, 8, 15), normal(2, 8, 12, 14), normal(1, 4, 6, 7, 8)
TOKENS = normal(2, 10, 32)


def _module(
    name: str, make: Callable[[], nn.Module], *inputs: Tensor, fast: bool = False
) -> Sample:
    return Sample(name=name, make=make, inputs=inputs, fast=fast)


def _call(
    name: str, function: Callable[..., Tensor], *inputs: Tensor, fast: bool = False
) -> Sample:
    return Sample(name=name, make=lambda: Call(function), inputs=inputs, fast=fast)


CONVOLUTIONS = [
    _module("conv1d", lambda: nn.Conv1d(8, 6, 3), LINE),
    _module("conv1d_dilated", lambda: nn.Conv1d(8, 6, 3, dilation=2, padding=2), LINE),
    _module("conv2d", lambda: nn.Conv2d(8, 6, 3, padding=1), IMAGE),
    _module("conv2d_strided", lambda: nn.Conv2d(8, 6, 3, stride=2, padding=1), IMAGE, fast=True),
    _module("conv2d_grouped", lambda: nn.Conv2d(8, 12, 3, groups=4, bias=False), IMAGE),
    _module("conv2d_depthwise", lambda: nn.Conv2d(8, 8, 7, padding=3, groups=8), IMAGE, fast=True),
    _module("conv2d_multiplied", lambda: nn.Conv2d(8, 16, 3, padding=1, groups=8), IMAGE),
    _module("conv2d_dilated", lambda: nn.Conv2d(8, 6, 3, dilation=(2, 3), padding=(2, 3)), IMAGE),
    _module("conv2d_uneven", lambda: nn.Conv2d(8, 6, (1, 5), (1, 2), (0, 2)), IMAGE),
    _module("conv2d_same", lambda: nn.Conv2d(8, 6, 4, padding="same"), IMAGE),
    _module("conv2d_reflect", lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    _module("conv2d_circular_free", lambda: nn.Conv2d(8, 6, 1), IMAGE),
    _module("conv3d", lambda: nn.Conv3d(4, 6, 3, padding=1, stride=(1, 2, 1)), VOLUME),
    _module("conv_transpose1d", lambda: nn.ConvTranspose1d(8, 6, 4, 2, 1), LINE),
    _module("conv_transpose2d", lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1), IMAGE, fast=True),
    _module(
        "conv_transpose2d_output_padding",
        lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1),
        IMAGE,
    ),
    _module("conv_transpose2d_grouped", lambda: nn.ConvTranspose2d(8, 6, 3, groups=2), IMAGE),
    _module("conv_transpose3d", lambda: nn.ConvTranspose3d(4, 6, 2, 2), VOLUME),
]
NORMALIZATIONS = [
    _module("batch_norm1d", lambda: trained(nn.BatchNorm1d(8)), LINE),
    _module("batch_norm2d", lambda: trained(nn.BatchNorm2d(8)), IMAGE, fast=True),
    _module("batch_norm3d", lambda: trained(nn.BatchNorm3d(4)), VOLUME),
    _module(
        "conv_batch_norm",
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3), trained(nn.BatchNorm2d(8))),
        IMAGE,
    ),
    _module("instance_norm", lambda: nn.InstanceNorm2d(8, affine=True), IMAGE),
    _module("group_norm", lambda: nn.GroupNorm(4, 8), IMAGE),
    _module("layer_norm", lambda: nn.LayerNorm(32), TOKENS, fast=True),
    _module("layer_norm_two_axes", lambda: nn.LayerNorm((10, 32)), TOKENS),
    _module("rms_norm", lambda: RMSNorm(32), TOKENS, fast=True),
    _module("channel_norm", lambda: ChannelNorm(8), IMAGE),
    _module("local_response_norm", lambda: nn.LocalResponseNorm(3, alpha=0.1), IMAGE),
    _call("l2_normalize", lambda x: F.normalize(x, dim=-1), TOKENS),
]
BLOCKS = [
    _module("attention", lambda: SelfAttention(fused=False), TOKENS),
    _module("attention_fused", lambda: SelfAttention(fused=True), TOKENS, fast=True),
    _module("swiglu", SwiGLU, TOKENS),
    _module("decoder_block", lambda: DecoderBlock(fused=True), TOKENS),
    _module("language_model", LanguageModel, torch.arange(10)[None].int(), fast=True),
    _module("multihead_attention", lambda: SelfAttention(heads=4, kv_heads=4, fused=True), TOKENS),
    _module("convnext_layer_norm", lambda: ConvNeXtBlock(norm=ChannelNorm(8)), IMAGE),
    _module(
        "convnext_batch_norm",
        lambda: ConvNeXtBlock(norm=trained(nn.BatchNorm2d(8))),
        IMAGE,
        fast=True,
    ),
    _module("squeeze_excite", SqueezeExcite, IMAGE),
    _module("inverted_residual", lambda: trained(InvertedResidual()), IMAGE, fast=True),
    _module("unet_step", UNetStep, IMAGE),
    _module("patch_embedding", PatchEmbedding, IMAGE[:, :, :12, :12]),
    _module("mlp_gelu_tanh", lambda: nn.Sequential(nn.Linear(32, 64), nn.GELU("tanh")), TOKENS),
    _call(
        "cross_attention", F.scaled_dot_product_attention, *(normal(1, 2, n, 8) for n in (3, 5, 5))
    ),
]
RESIZING = [
    _call("nearest_twice", lambda x: F.interpolate(x, scale_factor=2), IMAGE, fast=True),
    _call("nearest_size", lambda x: F.interpolate(x, size=(24, 28)), IMAGE),
    _call(
        "bilinear",
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
        IMAGE,
        fast=True,
    ),
    _call(
        "bilinear_aligned",
        lambda x: F.interpolate(x, size=(17, 9), mode="bilinear", align_corners=True),
        IMAGE,
    ),
    _call(
        "bilinear_smaller",
        lambda x: F.interpolate(x, size=(5, 6), mode="bilinear", align_corners=False),
        IMAGE,
    ),
    _call("linear1d", lambda x: F.interpolate(x, scale_factor=2, mode="linear"), LINE),
    _call(
        "grid_sample",
        lambda x, grid: F.grid_sample(x, grid, align_corners=False),
        IMAGE,
        normal(2, 5, 6, 2) / 2,
    ),
    _call("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), IMAGE),
    _call("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), IMAGE),
]
POOLING = [
    _module("max_pool1d", lambda: nn.MaxPool1d(3, 2), LINE),
    _module("max_pool2d", lambda: nn.MaxPool2d(3, 2, 1), IMAGE, fast=True),
    _module("max_pool2d_ceil", lambda: nn.MaxPool2d(3, 2, ceil_mode=True), IMAGE),
    _module("avg_pool2d", lambda: nn.AvgPool2d(3, 2, 1), IMAGE),
    _module(
        "avg_pool2d_without_padding", lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False), IMAGE
    ),
    _module("avg_pool3d", lambda: nn.AvgPool3d(2), VOLUME),
    _module("global_average", lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    _module("adaptive_average", lambda: nn.AdaptiveAvgPool2d((3, 7)), IMAGE),
]
ACTIVATIONS = [
    _call("gelu", F.gelu, TOKENS, fast=True),
    _call("silu", F.silu, TOKENS),
    _call("leaky_relu", lambda x: F.leaky_relu(x, 0.2), TOKENS),
    _call("elu", lambda x: F.elu(x, 0.7), TOKENS),
    _call("hardswish", F.hardswish, TOKENS),
    _call("hardsigmoid", F.hardsigmoid, TOKENS),
    _call("softplus", F.softplus, TOKENS),
    _call("mish", F.mish, TOKENS),
    _call("log_softmax", lambda x: F.log_softmax(x, -1), TOKENS),
    _call("glu", lambda x: F.glu(x, -1), TOKENS),
    _module("prelu", lambda: nn.PReLU(8), IMAGE),
    _call("softsign_relu6", lambda x: F.softsign(x) + F.relu6(3 * x), TOKENS),
]
TENSORS = [
    _call(
        "einsum", lambda x, y: torch.einsum("bij,bjk->bik", x, y), normal(2, 3, 4), normal(2, 4, 5)
    ),
    _call("where_scalars", lambda x: torch.where(x > 0, 1.0, -1e4), TOKENS),
    _call("where_broadcast", lambda x, y: torch.where(x > 0, x, y), TOKENS, normal(1, 1, 32)),
    _call("masked_fill", lambda x: x.masked_fill(x > 0.5, -1.0), TOKENS),
    _call("roll_and_flip", lambda x: torch.roll(x, 3, 1).flip(-1), TOKENS),
    _call("gather", lambda x: torch.gather(x, 1, x[:, :3].argsort(1)), TOKENS),
    _call("index_select", lambda x: x[:, torch.tensor([3, 1, 4])], TOKENS, fast=True),
    _call("topk", lambda x: x.topk(3, -1)[0] + x.topk(3, -1)[1], TOKENS),
    _call("sort", lambda x: x.sort(-1, descending=True)[0], TOKENS),
    _call("argmax_one_hot", lambda x: F.one_hot(x.argmax(-1), 32).float(), TOKENS),
    _call("cumsum", lambda x: x.cumsum(1), TOKENS),
    _call("tril", lambda x: x.tril(1) + x.triu(-2), TOKENS),
    _call("variance", lambda x: x.var(-1, keepdim=True) + x.std(1, keepdim=True), TOKENS),
    _call("norms", lambda x: x.norm(dim=-1) + x.abs().sum(-1) + x.logsumexp(-1), TOKENS),
    _call("unfold", lambda x: F.unfold(x, 3, padding=1), IMAGE),
    _call("pad_reflect", lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"), IMAGE),
    _call("pad_replicate", lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"), IMAGE),
    _call("chunk_stack", lambda x: torch.stack(x.chunk(4, -1), 1), TOKENS),
    _call("repeat_interleave", lambda x: x.repeat_interleave(2, 1).repeat(1, 1, 2), TOKENS),
    _call("slices", lambda x: x[:, 1::2, -5:-1] + x[:, :-1:2, ::8], TOKENS),
    _call("clamp_pow", lambda x: x.clamp(-0.5, 2).abs() ** 1.5 + x.sign(), TOKENS),
    _call("remainder", lambda x: torch.remainder(x, 0.7) + torch.floor_divide(x, 0.3), TOKENS),
    _call("baddbmm", torch.baddbmm, normal(2, 3, 5), normal(2, 3, 4), normal(2, 4, 5)),
    _call(
        "scatter_add", lambda x: x.scatter_add(1, torch.zeros(2, 3, 32).long(), x[:, :3]), TOKENS
    ),
    _call(
        "trigonometry", lambda x: x.sin() * x.cos() + x.tanh().atan() + x.erf(), TOKENS, fast=True
    ),
]
SAMPLES = [
    *CONVOLUTIONS,
    *NORMALIZATIONS,
    *BLOCKS,
    *RESIZING,
    *POOLING,
    *ACTIVATIONS,
    *TENSORS,
]
