"""Grouped-query attention over a cache of fixed length that lives in the package's state.

Nothing has more than four dimensions, and the cache is never repeated: the query heads that share
a key-value head are put one below the other, as if they were rows of one longer query.

Shape letters: T rows of a call, S the cache's length, G key-value heads, R query heads per
key-value head, E channels of a head.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.config import Qwen2Config
from reference.qwen2 import GroupedQueryAttention, rotary_embedding

MASKED = -3e4
"""Added to a score that must not count: its exponential is 0, and float16 can hold it and the sum
(minus infinity and finfo.min turn into NaN on some devices)."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes that are constants of the graph."""

    rows: int
    cache_length: int
    groups: int
    repeats: int
    head_dim: int

    @classmethod
    def of(cls, text: Qwen2Config, *, rows: int, cache_length: int) -> "Geometry":
        """The geometry of one function."""
        return cls(
            rows=rows,
            cache_length=cache_length,
            groups=text.num_key_value_heads,
            repeats=text.num_attention_heads // text.num_key_value_heads,
            head_dim=text.head_dim,
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """What all layers of a call share.

    Attributes:
        geometry: the sizes.
        position: int32 [1], where the first row goes.
        cos, sin: [T, E / 2] of the rows' angles.
        mask: [1, 1, R * T, S], to be added to the scores.
    """

    geometry: Geometry
    position: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor


def rotary_table(text: Qwen2Config, cache_length: int) -> Tensor:
    """Cosines, then sines, of all places: [S, E]; computed in float32.

    A table, because the angle of a late place is not to be had from float16: from 2048 on it has
    even numbers only. Both halves of a head turn by the same angles, so half of them is enough.
    """
    cos, sin = rotary_embedding(torch.arange(cache_length)[None], text)
    half = text.head_dim // 2
    return torch.cat([cos[0, 0, :, :half], sin[0, 0, :, :half]], dim=-1)


def begin(geometry: Geometry, position: Tensor, table: Tensor) -> Step:
    """Angles and mask of a call; position int32 [1], table as `rotary_table` gives it."""
    offsets = torch.arange(geometry.rows, dtype=torch.int32)
    stacked = offsets.repeat(geometry.repeats).view(1, 1, -1, 1) + position
    columns = torch.arange(geometry.cache_length, dtype=torch.int32).view(1, 1, 1, -1)
    # A lookup, because a slice from a computed place has no fixed shape.
    cos, sin = F.embedding(offsets + position, table).chunk(2, dim=-1)
    return Step(
        geometry=geometry,
        position=position,
        cos=cos,
        sin=sin,
        mask=(columns > stacked).to(torch.float32) * MASKED,
    )


def attend(
    layer: GroupedQueryAttention,
    x: Tensor,
    step: Step,
    caches: tuple[Tensor, Tensor],
    slot: int,
) -> Tensor:
    """[1, T, D] -> [1, T, D]; writes the rows' keys and values, then looks at the whole cache.

    Args:
        layer: the projections.
        x: the normed rows.
        step: see `begin`.
        caches: keys and values [layers, G, S, E], changed in place.
        slot: the layer's place in them.
    """
    size = step.geometry
    num_heads = size.groups * size.repeats
    query = _rotate(_heads(layer.q_proj(x), size, num_heads), step)
    key = _rotate(_heads(layer.k_proj(x), size, size.groups), step)
    value = _heads(layer.v_proj(x), size, size.groups)
    start, end = step.position, step.position + size.rows
    keys, values = caches
    keys[slot : slot + 1, :, start:end] = key
    values[slot : slot + 1, :, start:end] = value
    stacked = query.reshape(1, size.groups, size.repeats * size.rows, size.head_dim)
    # No `scale`: given one, the converter writes the attention out.
    mixed = F.scaled_dot_product_attention(
        stacked, keys[slot : slot + 1], values[slot : slot + 1], attn_mask=step.mask
    )
    heads = mixed.reshape(1, num_heads, size.rows, size.head_dim)
    flat = heads.transpose(1, 2).reshape(1, size.rows, num_heads * size.head_dim)
    y: Tensor = layer.o_proj(flat)
    return y


def _heads(x: Tensor, size: Geometry, num_heads: int) -> Tensor:
    """[1, T, heads * E] -> [1, heads, T, E]."""
    return x.view(1, size.rows, num_heads, size.head_dim).transpose(1, 2)


def _rotate(x: Tensor, step: Step) -> Tensor:
    """Turn channel pairs (i, i + E/2) of x [1, heads, T, E] by the angles of their places."""
    first, second = x.chunk(2, dim=-1)
    turned = first * step.cos - second * step.sin, second * step.cos + first * step.sin
    return torch.cat(turned, dim=-1)
