"""Many sequences through one language model, layer by layer.

Every layer is run for all sequences before the next is, so that a model that is read as it runs
(`streaming.py`) is read once for all of them. Each sequence is computed alone: its numbers are
those that `Qwen2` gives it, to the bit, also where a run goes on with what a killed one has kept.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from reference.decoding import GenerationSettings, Logits, checked_logits
from reference.kept import NOTHING_KEPT, Arrays, Kept
from reference.qwen2 import Cache, LayerCache, Qwen2, attention_bias, rotary_embedding

NUM_TOGETHER = 16
"""Sequences at a time: their caches must fit beside the weights (the 7B: 115 KB a position)."""

NUM_BY_LAYER = 64
"""Positions from which a pass is kept layer by layer: with fewer it takes little more than to read
the weights."""

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
    kept: Kept = NOTHING_KEPT,
) -> list[Tensor]:
    """Hidden states behind the last layer, [1, L, D] of each sequence; L may differ.

    Args:
        language: the model, float32.
        embeds: the new positions [1, L, D] of each sequence: what `first_layer` is given.
        caches: of each sequence what earlier calls left there, an empty list before the first; they
            grow in place. None keeps nothing.
        first_layer: those before it are not run.
        kept: of a pass over many positions, the layers.
    """
    states = list(embeds)
    pasts = [_num_cached(cache) for cache in caches or [[]] * len(states)]
    given = [surroundings(language, x, past) for x, past in zip(states, pasts, strict=True)]
    grain = kept if sum(x.shape[1] for x in states) >= NUM_BY_LAYER else NOTHING_KEPT
    for index, layer in enumerate(language.layers[first_layer:], start=first_layer):

        def run(_: Kept, index: int = index, layer: torch.nn.Module = layer) -> Arrays:
            made = {}
            for row, (rotary, bias) in enumerate(given):
                past = caches[row][index] if caches is not None and pasts[row] else None
                x, new = layer(states[row], rotary, bias, past)
                made[f"states {row}"] = x.numpy()
                if caches is not None:
                    made |= _new_rows(new, pasts[row], f"{row}")
            return made

        made = grain.arrays(f"layer {index}", run)
        for row in range(len(states)):
            states[row] = torch.from_numpy(made[f"states {row}"])
            if caches is not None:
                _grow(caches[row], index, made, f"{row}")
    return states


def _new_rows(cache: LayerCache, past: int, name: str) -> Arrays:
    """What a layer's cache has more than before."""
    key, value = cache.key[:, :, past:], cache.value[:, :, past:]
    return {
        f"keys {name}": key.contiguous().numpy(),
        f"values {name}": value.contiguous().numpy(),
    }


def _grow(cache: Cache, index: int, rows: Arrays, name: str) -> None:
    """Put behind a layer's cache what `_new_rows` took of it."""
    key, value = (torch.from_numpy(rows[f"{part} {name}"]) for part in ("keys", "values"))
    if index < len(cache):
        key = torch.cat([cache[index].key, key], dim=2)
        value = torch.cat([cache[index].value, value], dim=2)
    cache[index : index + 1] = [LayerCache(key=key, value=value)]


@torch.inference_mode()
def logits_together(
    language: Qwen2,
    embeds: Sequence[Tensor],
    num_last: int | None = None,
    *,
    kept: Kept = NOTHING_KEPT,
) -> Iterator[Tensor]:
    """Logits [K, V] of whole sequences [1, L, D], one after the other.

    Args:
        language: the model.
        embeds: each sequence's positions.
        num_last: K, of the last positions; fewer where a sequence is shorter, None for all.
        kept: the states of sequences that are run together.
    """
    for start in range(0, len(embeds), NUM_TOGETHER):
        together = embeds[start : start + NUM_TOGETHER]

        def run(inner: Kept, together: Sequence[Tensor] = together) -> Arrays:
            states = through_layers(language, together, kept=inner)
            return {
                str(row): (x[0] if num_last is None else x[0, -num_last:]).clone().numpy()
                for row, x in enumerate(states)
            }

        last = kept.arrays(f"states from {start}", run)
        for row in range(len(together)):
            yield head(language, torch.from_numpy(last[str(row)]))


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
    kept: Kept = NOTHING_KEPT,
) -> list[tuple[int, ...]]:
    """What `generate` answers to each prompt [1, L, D] with greedy settings.

    Args:
        language: the model.
        prompts: embedded.
        settings: of all of them.
        on_logits: called with a prompt's number and the logits [1, V] of each of its steps.
        kept: the answers of prompts that are run together, and each pass on the way there.

    Raises:
        GenerationError: a logit is not finite.
    """
    assert settings.temperature == 0, "greedy has no temperature"
    assert settings.num_beams == 1, "greedy has one beam"
    answers: list[tuple[int, ...]] = []
    for start in range(0, len(prompts), NUM_TOGETHER):
        rows = range(start, min(start + NUM_TOGETHER, len(prompts)))
        new = {row: prompts[row] for row in rows}

        def run(inner: Kept, new: dict[int, Tensor] = new) -> Arrays:
            return _answers(language, new, settings, inner, with_logits=on_logits is not ignore)

        made = kept.arrays(f"answers from {start}", run)
        for row in rows:
            answers.append(tuple(made[f"tokens {row}"].tolist()))
            for logits in made.get(f"logits {row}", ()):
                on_logits(row, logits)
    return answers


@torch.inference_mode()
def _answers(
    language: Qwen2,
    new: dict[int, Tensor],
    settings: GenerationSettings,
    kept: Kept,
    *,
    with_logits: bool,
) -> Arrays:
    """`tokens N` [n] of each prompt, and maybe `logits N` [steps, 1, V].

    Args: new: by the prompt's number, the positions that are not run yet.
    """
    chosen: dict[int, list[int]] = {row: [] for row in new}
    seen: dict[int, list[Logits]] = {row: [] for row in new}
    caches: dict[int, Cache] = {row: [] for row in new}
    for number in itertools.count():
        rows, made = list(new), _kept_pass(language, new, caches, kept, number)
        new = {}
        for row in rows:
            logits = made[f"logits {row}"]
            if with_logits:
                seen[row].append(logits)
            token = int(np.argmax(checked_logits(logits, settings.vocab_limit)[0]))
            if token in settings.eos_token_ids:
                continue
            chosen[row].append(token)
            if len(chosen[row]) < settings.max_new_tokens:
                new[row] = language.embed_tokens(torch.tensor([[token]]))
        if not new:
            break
    answers: dict[str, np.ndarray] = {
        f"tokens {row}": np.array(ids, dtype=np.int64) for row, ids in chosen.items()
    }
    return answers | {f"logits {row}": np.stack(each) for row, each in seen.items() if each}


def _kept_pass(
    language: Qwen2, new: dict[int, Tensor], caches: dict[int, Cache], kept: Kept, number: int
) -> Arrays:
    """`logits N` [1, V] of each prompt after its new positions, by which its cache grows."""
    pasts = {row: _num_cached(caches[row]) for row in new}

    def run(inner: Kept) -> Arrays:
        grown = {row: list(caches[row]) for row in new}
        states = through_layers(language, list(new.values()), list(grown.values()), kept=inner)
        made = {}
        for row, x in zip(new, states, strict=True):
            made[f"logits {row}"] = head(language, x[:, -1:])[:, -1].float().numpy()
            for index, cache in enumerate(grown[row]):
                made |= _new_rows(cache, pasts[row], f"{row} {index}")
        return made

    made = kept.arrays(f"pass {number}", run)
    for row in new:
        for index in range(len(language.layers)):
            _grow(caches[row], index, made, f"{row} {index}")
    return made


def _num_cached(cache: Cache) -> int:
    return cache[0].key.shape[2] if cache else 0


def surroundings(language: Qwen2, x: Tensor, past: int = 0) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """What a layer is told of positions [1, L, D] behind `past` others: rotary angles and bias."""
    length = x.shape[1]
    rotary = rotary_embedding(torch.arange(past, past + length)[None], language.config)
    seen = torch.ones((1, past + length), dtype=torch.long)
    return rotary, attention_bias(seen, length, x.dtype)
