"""One prompt decoded by the PyTorch language model, behind the interface of `generation.py`."""

import torch
from torch import Tensor

from reference.decoding import Ids, Logits
from reference.qwen2 import Cache, LayerCache, Qwen2


class TorchSession:
    """A `Session` over `Qwen2`, holding its KV cache.

    Args:
        language: the model.
        inputs_embeds: the prompt, [1, L, H].
    """

    def __init__(self, language: Qwen2, inputs_embeds: Tensor) -> None:
        self._language = language
        self._prompt = inputs_embeds
        self._cache: Cache | None = None

    def start(self) -> Logits:
        """Run the prompt: logits after it, float32 [1, V]."""
        return self._forward(self._prompt)

    def step(self, token_ids: Ids) -> Logits:
        """Append one token per row, [B]; the next logits, float32 [B, V]."""
        return self._forward(self._language.embed_tokens(torch.from_numpy(token_ids)[:, None]))

    def select(self, rows: Ids) -> None:
        """Row i of the cache becomes row `rows[i]`."""
        if self._cache is None:
            raise AssertionError("select before start")
        index = torch.from_numpy(rows)
        self._cache = [
            LayerCache(key=layer.key[index], value=layer.value[index]) for layer in self._cache
        ]

    @torch.inference_mode()
    def _forward(self, embeds: Tensor) -> Logits:
        logits, self._cache = self._language(embeds, cache=self._cache, last_only=True)
        rows: Logits = logits[:, -1].float().numpy()
        return rows
