"""Many sequences through one language model, layer by layer.

Every layer is run for all sequences before the next is, so that a model that is read as it runs
(`streaming.py`) is read once for all of them. Each sequence is computed alone: its numbers are
those that `Qwen2` gives it, to the bit.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from reference.decoding import GenerationSettings, Logits, checked_logits
from reference.qwen2 import Cache, Qwen2, attention_bias, rotary_embedding

NUM_TOGETHER = 16
"""Sequences at a time: their caches must fit beside the weights (the 7B: 115 KB a position)."""

OnLogits = Callable[[int, Logits], None]


def ignore(number: int, logits: Logits) -> None:
    """Nobody asks for logits."""
    del number, logits


@torch.inference_mode()
def through_layers(
    language: Qwen2,
    embeds: Sequence[Tensor],
    caches: Sequence[Cache] | None = None,
    *,
    first_layer: int = 0,
) -> list[Tensor]:
    """Hidden states behind the last layer, [1, L, D] of each sequence; L may differ.

    Args:
        language: the model.
        embeds: the new positions [1, L, D] of each sequence: what `first_layer` is given.
        caches: of each sequence what earlier calls left there, an empty list before the first; they
            grow in place. None keeps nothing.
        first_layer: those before it are not run.
    """
    states = list(embeds)
    pasts = [_num_cached(cache) for cache in caches or [[]] * len(states)]
    given = [surroundings(language, x, past) for x, past in zip(states, pasts, strict=True)]
    for index, layer in enumerate(language.layers[first_layer:], start=first_layer):
        for row, (rotary, bias) in enumerate(given):
            past = caches[row][index] if caches is not None and pasts[row] else None
            states[row], new = layer(states[row], rotary, bias, past)
            if caches is not None:
                caches[row][index : index + 1] = [new]
    return states


@torch.inference_mode()
def logits_together(
    language: Qwen2, embeds: Sequence[Tensor], num_last: int | None = None
) -> Iterator[Tensor]:
    """Logits [K, V] of whole sequences [1, L, D], one after the other.

    Args:
        language: the model.
        embeds: each sequence's positions.
        num_last: K, of the last positions; fewer where a sequence is shorter, None for all.
    """
    for start in range(0, len(embeds), NUM_TOGETHER):
        for x in through_layers(language, embeds[start : start + NUM_TOGETHER]):
            yield head(language, x[0] if num_last is None else x[0, -num_last:])


def head(language: Qwen2, states: Tensor) -> Tensor:
    """Hidden states [..., D] behind the last layer -> logits [..., V]."""
    logits: Tensor = language.lm_head(language.norm(states))
    return logits


def greedy_together(
    language: Qwen2,
    prompts: Sequence[Tensor],
    settings: GenerationSettings,
    *,
    on_logits: OnLogits = ignore,
) -> list[tuple[int, ...]]:
    """What `generate` answers to each prompt [1, L, D] with greedy settings.

    Args:
        language: the model.
        prompts: embedded.
        settings: of all of them.
        on_logits: called with a prompt's number and the logits [1, V] of each of its steps.

    Raises:
        GenerationError: a logit is not finite.
    """
    assert settings.temperature == 0, "greedy has no temperature"
    assert settings.num_beams == 1, "greedy has one beam"
    answers: list[tuple[int, ...]] = []
    for start in range(0, len(prompts), NUM_TOGETHER):
        rows = range(start, min(start + NUM_TOGETHER, len(prompts)))
        answers += _answers(language, {row: prompts[row] for row in rows}, settings, on_logits)
    return answers


@torch.inference_mode()
def _answers(
    language: Qwen2, new: dict[int, Tensor], settings: GenerationSettings, on_logits: OnLogits
) -> list[tuple[int, ...]]:
    """Args: new: by the prompt's number, the positions that are not run yet."""
    chosen: dict[int, list[int]] = {row: [] for row in new}
    caches: dict[int, Cache] = {row: [] for row in new}
    while new:
        states = through_layers(language, list(new.values()), [caches[row] for row in new])
        rows, new = list(new), {}
        for row, x in zip(rows, states, strict=True):
            logits: Logits = head(language, x[:, -1:])[:, -1].float().numpy()
            on_logits(row, logits)
            token = int(np.argmax(checked_logits(logits, settings.vocab_limit)[0]))
            if token in settings.eos_token_ids:
                continue
            chosen[row].append(token)
            if len(chosen[row]) < settings.max_new_tokens:
                new[row] = language.embed_tokens(torch.tensor([[token]]))
    return [tuple(ids) for ids in chosen.values()]


def _num_cached(cache: Cache) -> int:
    return cache[0].key.shape[2] if cache else 0


def surroundings(language: Qwen2, x: Tensor, past: int = 0) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """What a layer is told of positions [1, L, D] behind `past` others: rotary angles and bias."""
    length = x.shape[1]
    rotary = rotary_embedding(torch.arange(past, past + length)[None], language.config)
    seen = torch.ones((1, past + length), dtype=torch.long)
    return rotary, attention_bias(seen, length, x.dtype)
