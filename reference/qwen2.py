"""Qwen2, the language model of FastVLM.

Source: the Qwen2 technical report (arXiv 2407.10671), section 2; names as in Hugging Face's Qwen2.

Shape letters: B sequences, L new positions, P cached positions, D the hidden size, V the
vocabulary, G key-value heads, R query heads per key-value head, E channels of a head.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.config import Qwen2Config
from reference.linear import Linear


@dataclass(kw_only=True)
class LayerCache:
    """Keys and values of the positions one layer has seen, each [B, G, P, E]."""

    key: Tensor
    value: Tensor


Cache = list[LayerCache]


class Qwen2(nn.Module):
    """A decoder of embeddings: it never sees token ids but through `embed_tokens`."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(
        self,
        inputs_embeds: Tensor,
        *,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        last_only: bool = False,
    ) -> tuple[Tensor, Cache]:
        """Logits after each new position, and the cache that now holds them too.

        Args:
            inputs_embeds: [B, L, D].
            cache: what earlier calls returned, P positions per layer; None for none.
            attention_mask: [B, P + L], 1 where a position counts, 0 for padding.
            position_ids: [B, L]; by default counted from the mask, or from P.
            last_only: compute the logits of the last position alone.

        Returns:
            Logits [B, L, V] (or [B, 1, V]) and a cache of P + L positions per layer.
        """
        batch, length, _ = inputs_embeds.shape
        past = 0 if cache is None else cache[0].key.shape[2]
        if attention_mask is None:
            attention_mask = inputs_embeds.new_ones((batch, past + length), dtype=torch.long)
        if position_ids is None:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, past:]
        rotary = rotary_embedding(position_ids, self.config)
        bias = attention_bias(attention_mask, length, inputs_embeds.dtype)
        x = inputs_embeds
        new_cache: Cache = []
        for index, layer in enumerate(self.layers):
            x, layer_cache = layer(x, rotary, bias, None if cache is None else cache[index])
            new_cache.append(layer_cache)
        if last_only:
            x = x[:, -1:]
        return self.lm_head(self.norm(x)), new_cache


class DecoderLayer(nn.Module):
    """Attention and gated feed-forward, each behind an RMSNorm and a residual."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.self_attn = GroupedQueryAttention(config)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], bias: Tensor, cache: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        """[B, L, D] -> [B, L, D] and this layer's new cache."""
        mixed, new_cache = self.self_attn(self.input_layernorm(x), rotary, bias, cache)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), new_cache


class GroupedQueryAttention(nn.Module):
    """Causal attention in which R query heads share one key-value head."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.num_kv_heads = config.num_key_value_heads
        query_size = config.num_attention_heads * config.head_dim
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, query_size)
        self.k_proj = Linear(config.hidden_size, kv_size)
        self.v_proj = Linear(config.hidden_size, kv_size)
        self.o_proj = Linear(query_size, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], bias: Tensor, cache: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        """[B, L, D] and a bias [B, 1, L, P + L] -> [B, L, D] and the cache with L more rows."""
        query = rotate(self._heads(self.q_proj(x)), rotary)
        key = rotate(self._heads(self.k_proj(x)), rotary)
        value = self._heads(self.v_proj(x))
        if cache is not None:
            key = torch.cat([cache.key, key], dim=2)
            value = torch.cat([cache.value, value], dim=2)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, enable_gqa=query.shape[1] != self.num_kv_heads
        )
        mixed = mixed.transpose(1, 2).flatten(2)  # [B, L, heads * E]
        return self.o_proj(mixed), LayerCache(key=key, value=value)

    def _heads(self, x: Tensor) -> Tensor:
        """[B, L, heads * E] -> [B, heads, L, E]."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)


class GatedMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the mean of squares taken in float32."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> same."""
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


def rotary_embedding(position_ids: Tensor, config: Qwen2Config) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, 1, L, E] of the rotary angles (arXiv 2104.09864), in float32."""
    channels = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=position_ids.device)
    inverse_frequency = 1.0 / config.rope_theta ** (channels / config.head_dim)
    angles = position_ids[:, None, :, None].float() * inverse_frequency
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate channel pairs (i, i + E/2) of x [B, heads, L, E] by their angles."""
    cos, sin = (part.to(x.dtype) for part in rotary)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def attention_bias(attention_mask: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """What to add to the scores: 0 where a query may look, a large negative where not.

    Args:
        attention_mask: [B, P + L], 1 for positions that count.
        length: L, the new positions, which are the last ones.
        dtype: of the scores.

    Returns:
        [B, 1, L, P + L]. A fully masked row (a padding query) is uniform, not NaN.
    """
    total = attention_mask.shape[1]
    columns = torch.arange(total, device=attention_mask.device)
    rows = columns[total - length :, None]
    allowed = (columns <= rows) & attention_mask[:, None, None, :].bool()
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
