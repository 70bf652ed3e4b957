"""Inputs of a decoder graph, and the reference's answer to them."""

from collections.abc import Mapping

import numpy as np
import torch

from reference.config import Qwen2Config
from reference.qwen2 import Cache, Qwen2


def decoder_feeds(
    text: Qwen2Config,
    embeds: torch.Tensor,
    past: Mapping[str, np.ndarray] | None = None,
    *,
    mask: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> dict[str, np.ndarray]:
    """New embeddings [B, L, D] on top of a cache; nothing padded and in order unless given."""
    batch, length, _ = embeds.shape
    start = 0 if past is None else past["present.0.key"].shape[2]
    if mask is None:
        mask = torch.ones(batch, start + length, dtype=torch.long)
    if positions is None:
        positions = torch.arange(start, start + length).expand(batch, -1)
    feeds = {
        "inputs_embeds": embeds.numpy(),
        "attention_mask": mask.numpy(),
        "position_ids": positions.contiguous().numpy(),
    }
    empty = np.zeros((batch, text.num_key_value_heads, 0, text.head_dim), np.float32)
    for layer in range(text.num_hidden_layers):
        for part in ("key", "value"):
            name = f"{layer}.{part}"
            feeds[f"past_key_values.{name}"] = empty if past is None else past[f"present.{name}"]
    return feeds


def answer(
    model: Qwen2, embeds: torch.Tensor, cache: Cache | None = None
) -> tuple[np.ndarray, Cache]:
    """The reference's logits [B, L, V] and its cache, nothing padded and in order."""
    start = 0 if cache is None else cache[0].key.shape[2]
    batch, length, _ = embeds.shape
    with torch.no_grad():
        logits, cache = model(
            embeds,
            cache=cache,
            attention_mask=torch.ones(batch, start + length, dtype=torch.long),
            position_ids=torch.arange(start, start + length).expand(batch, -1),
        )
    return logits.numpy(), cache
