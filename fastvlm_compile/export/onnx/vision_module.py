"""The vision encoder in the form that is traced: its parameters are the graph's initializers.

Built from the reference on the meta device, then three kinds of module are replaced by equals that
export to fewer and better nodes: BatchNorm is folded into its convolution, linear layers hold
their weight transposed, attention works on tokens. `bind_vision` gives each parameter its values
from the checkpoint.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvlm_compile.export.batch_norm import fold_batch_norm
from fastvlm_compile.export.onnx.weights import StreamedTensor, stored
from fastvlm_compile.export.weight_source import WeightSource
from reference.checkpoint.names import PROJECTOR_PREFIX, VISION_PREFIX
from reference.config import VisionConfig
from reference.fastvithd import LAYER_NORM_EPS, AttentionBlock, ConvNorm, FastViTHD
from reference.projector import Projector

TRANSPOSED = "weight_transposed"

_CANONICAL_PREFIXES = {"vision.": VISION_PREFIX, "projector.": PROJECTOR_PREFIX}


class TracedVision(nn.Module):
    """Image to language embeddings: [B, 3, S, S] -> [B, T, H]."""

    def __init__(self, vision: VisionConfig, hidden_size: int) -> None:
        super().__init__()
        self.vision = FastViTHD(vision)
        self.projector = Projector(vision.out_channels, hidden_size)
        del self.vision.head  # in the file, never used
        replace_modules(self)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, S, S] in 0..1 -> [B, T, H], positions row by row."""
        features = self.vision(pixel_values).flatten(2).transpose(1, 2)
        projected: Tensor = self.projector(features)
        return projected


class TransposedLinear(nn.Module):
    """A linear layer whose weight is stored [in, out], as MatMul wants it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = torch.empty(linear.in_features, linear.out_features, device="meta")
        self.weight_transposed = nn.Parameter(weight)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        y = x @ self.weight_transposed
        return y if self.bias is None else y + self.bias


class FoldedConvNorm(nn.Module):
    """A depthwise 7x7 whose weight and bias hold the BatchNorm that followed it."""

    def __init__(self, module: ConvNorm) -> None:
        super().__init__()
        width = module.conv.out_channels
        self.conv = nn.Conv2d(width, width, 7, padding=3, groups=width, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        y: Tensor = self.conv(x)
        return y


class TracedAttentionBlock(nn.Module):
    """The reference's attention block with its first half in the token layout [B, N, C].

    There LayerNorm is over the last axis, as ONNX has it, and no map is transposed between the norm
    and the projection. Attention is spelled out: the exporter writes
    `scaled_dot_product_attention` as two dozen nodes, half of them arithmetic on constants.
    """

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        mixer = block.token_mixer
        self.num_heads = mixer.num_heads
        self.head_dim = mixer.head_dim
        self.norm = block.norm
        self.token_mixer = nn.ModuleDict(
            {"qkv": TransposedLinear(mixer.qkv), "proj": TransposedLinear(mixer.proj)}
        )
        self.convffn = block.convffn
        self.layer_scale_1 = block.layer_scale_1
        self.layer_scale_2 = block.layer_scale_2
        replace_modules(self.convffn)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same."""
        _, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # [B, N, C]
        normed = F.layer_norm(tokens, (channels,), self.norm.weight, self.norm.bias, LAYER_NORM_EPS)
        mixed = self._attend(normed, height * width, channels)
        mixed = mixed.transpose(1, 2).reshape(-1, channels, height, width)
        x = x + mixed * self.layer_scale_1
        y: Tensor = x + self.convffn(x) * self.layer_scale_2
        return y

    def _attend(self, tokens: Tensor, positions: int, channels: int) -> Tensor:
        """[B, N, C] -> same."""
        packed = self.token_mixer["qkv"](tokens)
        query, key, value = (
            packed[:, :, start : start + channels]
            .reshape(-1, positions, self.num_heads, self.head_dim)
            .transpose(1, 2)  # [B, heads, N, head_dim]
            for start in (0, channels, 2 * channels)
        )
        weights = F.softmax((query * self.head_dim**-0.5) @ key.transpose(2, 3), dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(-1, positions, channels)
        projected: Tensor = self.token_mixer["proj"](mixed)
        return projected


def replace_modules(module: nn.Module) -> None:
    """Swap the children of a reference module for their traced forms, all the way down."""
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            setattr(module, name, FoldedConvNorm(child))
        elif isinstance(child, AttentionBlock):
            setattr(module, name, TracedAttentionBlock(child))
        elif isinstance(child, nn.Linear):
            setattr(module, name, TransposedLinear(child))
        else:
            replace_modules(child)


def bind_vision(module: TracedVision, source: WeightSource) -> dict[str, StreamedTensor]:
    """The values of every parameter of the traced form, by parameter name, none read yet."""
    return {
        name: _bind(name, tuple(parameter.shape), source)
        for name, parameter in module.named_parameters()
    }


def _bind(name: str, shape: tuple[int, ...], source: WeightSource) -> StreamedTensor:
    canonical = _canonical(name)
    stem, _, leaf = canonical.rpartition(".")
    if leaf == TRANSPOSED:
        return StreamedTensor(name, shape, lambda: source.read(f"{stem}.weight").t())
    if stem.endswith(".conv.conv"):
        part = 0 if leaf == "weight" else 1
        prefix = stem.removesuffix(".conv")
        return StreamedTensor(name, shape, lambda: fold_batch_norm(source.read, prefix)[part])
    tensor = stored(source, canonical)
    tensor.name = name
    return tensor


def canonical_weight(parameter: str) -> str:
    """The canonical name of the tensor that a weight of the traced form comes from."""
    stem, _, leaf = _canonical(parameter).rpartition(".")
    return f"{stem}.weight" if leaf == TRANSPOSED else f"{stem}.{leaf}"


def _canonical(name: str) -> str:
    for prefix, canonical in _CANONICAL_PREFIXES.items():
        if name.startswith(prefix):
            return canonical + name.removeprefix(prefix)
    raise AssertionError(f"{name} is in no part of the vision encoder")
