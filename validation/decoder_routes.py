"""Ways to run a decoder with a cache over one sequence; all must give the same logits.

A graph may be right in one pass and wrong with a past, or right alone and wrong in a padded batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from validation.runtimes.base import Floats
from validation.runtimes.onnx_decoder import Cache, OnnxDecoder

MAX_STEPS = 32
"""Single-token steps per case: enough to leave the prompt, few enough for a large model."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Logits [K, V] after the positions `first` .. `first` + K - 1 of a sequence."""

    first: int
    logits: Floats


def prefill(decoder: OnnxDecoder, embeds: Floats) -> tuple[Rows, tuple[str, ...]]:
    """All N positions in one call on an empty cache.

    Args:
        decoder: the graph.
        embeds: [N, H].

    Returns:
        Rows of all positions, or of the last where the graph gives no more; and what is wrong with
        the cache.
    """
    output = decoder.append(embeds[None], decoder.empty_cache(1))
    rows = Rows(first=len(embeds) - output.logits.shape[1], logits=output.logits[0])
    return rows, cache_problems(output.cache, decoder.empty_cache(1), length=len(embeds))


def cached(decoder: OnnxDecoder, embeds: Floats) -> tuple[Rows, tuple[str, ...]]:
    """The prompt in two pieces, the second with a past, and the last positions one by one.

    Args and returns as `prefill`; rows from the end of the second piece on.
    """
    num_steps = min(MAX_STEPS, len(embeds) - 2)
    prompt = len(embeds) - num_steps
    bounds = (0, prompt // 2, prompt, *range(prompt + 1, len(embeds) + 1))
    cache = decoder.empty_cache(1)
    rows = []
    for begin, end in pairwise(bounds):
        output = decoder.append(embeds[None, begin:end], cache)
        cache = output.cache
        rows.append(output.logits[:, -1])
    problems = cache_problems(cache, decoder.empty_cache(1), length=len(embeds))
    return Rows(first=prompt - 1, logits=np.concatenate(rows[1:])), problems


def padded(decoder: OnnxDecoder, sequences: Sequence[Floats]) -> tuple[Rows, ...]:
    """Sequences of different lengths side by side, padded on the left, the last position stepped.

    Padding is masked out and repeats position 0; it holds ones, so that a mask that is ignored
    shows.

    Args:
        decoder: the graph; its batch must not be fixed.
        sequences: B arrays [N_b, H], each of at least two positions.

    Returns:
        For each sequence the rows of its last two positions.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    longest = int(lengths.max())
    batch = np.ones((len(sequences), longest, sequences[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(sequences), longest), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        batch[row, longest - len(sequence) :] = sequence
        mask[row, longest - len(sequence) :] = 1
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    prompt = decoder.run(
        inputs_embeds=np.ascontiguousarray(batch[:, :-1]),
        attention_mask=np.ascontiguousarray(mask[:, :-1]),
        position_ids=np.ascontiguousarray(positions[:, :-1]),
        cache=decoder.empty_cache(len(sequences)),
    )
    step = decoder.run(
        inputs_embeds=np.ascontiguousarray(batch[:, -1:]),
        attention_mask=mask,
        position_ids=np.ascontiguousarray(positions[:, -1:]),
        cache=prompt.cache,
    )
    last_two = np.stack([prompt.logits[:, -1], step.logits[:, -1]], axis=1)
    return tuple(
        Rows(first=int(length) - 2, logits=logits)
        for length, logits in zip(lengths, last_two, strict=True)
    )


def cache_problems(found: Cache, empty: Cache, *, length: int) -> tuple[str, ...]:
    """What is wrong with a cache that should hold `length` positions, by array."""
    problems = []
    for name, array in found.items():
        batch, heads, _, head_dim = empty[name].shape
        expected = (batch, heads, length, head_dim)
        if array.shape != expected:
            problems.append(f"{name}: expected shape {expected}, found {array.shape}")
        if array.dtype != empty[name].dtype:
            problems.append(f"{name}: expected dtype {empty[name].dtype}, found {array.dtype}")
        if not np.isfinite(array).all():
            problems.append(f"{name}: expected finite values")
    return tuple(problems)
