"""What every way of decoding shares: the session it drives, settings, result, checks, clock."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from reference.errors import UserError

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
OnToken = Callable[[int], None]


class GenerationError(UserError):
    """Generation cannot go on: settings that exclude each other, or a model that gives NaN."""


class Session(Protocol):
    """One prompt being decoded; owns its KV cache. B is the number of rows decoded side by side."""

    def start(self) -> Logits:
        """Runs the prompt. Returns the logits after it, float32 [1, V]."""
        ...

    def step(self, token_ids: Ids) -> Logits:
        """Appends one token per row, int64 [B]. Returns the next logits, float32 [B, V]."""
        ...

    def select(self, rows: Ids) -> None:
        """Keeps, duplicates or reorders the cache's rows: row i becomes `rows[i]`, int64 [B']."""
        ...


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How to choose tokens.

    Attributes:
        max_new_tokens: at most so many tokens, the end-of-turn token among them.
        temperature: 0 is greedy; above 0 samples from softmax(logits / temperature).
        top_p: only the smallest set of most probable tokens whose probabilities add up to `top_p`
            may be chosen; the greedy token is always in it.
        num_beams: above 1 is beam search (length penalty 1, no early stopping), without sampling.
        seed: of numpy's generator, for sampling.
        eos_token_ids: tokens that end the answer; they are not part of it.
        vocab_limit: logits from this row on are never chosen (padding rows beyond the tokenizer).
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    num_beams: int = 1
    seed: int = 0
    eos_token_ids: tuple[int, ...] = ()
    vocab_limit: int | None = None

    def __post_init__(self) -> None:
        """Raises GenerationError for values outside their range or that exclude each other."""
        wrong = ""
        if self.max_new_tokens < 1:
            wrong = f"max_new_tokens must be at least 1, not {self.max_new_tokens}"
        elif not (0 <= self.temperature < math.inf):
            wrong = f"temperature must be a number from 0 on, not {self.temperature}"
        elif not (0 < self.top_p <= 1):
            wrong = f"top_p must be above 0 and at most 1, not {self.top_p}"
        elif self.num_beams < 1:
            wrong = f"num_beams must be at least 1, not {self.num_beams}"
        elif self.seed < 0:
            wrong = f"seed must be at least 0, not {self.seed}"
        elif self.vocab_limit is not None and self.vocab_limit < 1:
            wrong = f"vocab_limit must be at least 1, not {self.vocab_limit}"
        elif self.num_beams > 1 and self.temperature > 0:
            wrong = "beam search and sampling exclude each other"
        if wrong:
            raise GenerationError(wrong, hint="see the generation settings")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """An answer and how fast it came.

    Attributes:
        token_ids: the answer, without the end-of-turn token.
        finish_reason: `eos`, or `length` when `max_new_tokens` were used up.
        time_to_first_token_s: from the call to the first token's choice, the prompt's run included.
        tokens_per_second: of the steps after the first token; 0 if there were none.
    """

    token_ids: tuple[int, ...]
    finish_reason: Literal["eos", "length"]
    time_to_first_token_s: float
    tokens_per_second: float


class Clock:
    """Times one generation: `tick` after each step's choice."""

    def __init__(self) -> None:
        self._ticks = [time.perf_counter()]

    def tick(self) -> None:
        """Notes that a step's tokens have been chosen."""
        self._ticks.append(time.perf_counter())

    def generation(self, ids: list[int], reason: Literal["eos", "length"]) -> Generation:
        """The result, with times from the ticks so far."""
        steps_after_first = len(self._ticks) - 2
        decoding_s = self._ticks[-1] - self._ticks[1]
        return Generation(
            token_ids=tuple(ids),
            finish_reason=reason,
            time_to_first_token_s=self._ticks[1] - self._ticks[0],
            tokens_per_second=steps_after_first / decoding_s if decoding_s > 0 else 0.0,
        )


def checked_logits(logits: Logits, vocab_limit: int | None) -> Logits:
    """The rows that may be chosen, float32 [B, min(V, vocab_limit)].

    Raises:
        GenerationError: a logit is NaN or infinite.
    """
    kept = logits[:, :vocab_limit]
    finite = np.isfinite(kept)
    if not finite.all():
        raise GenerationError(
            f"the model gave {int((~finite).sum())} of {kept.size} logits that are not finite",
            hint="its weights or its precision are broken; `verify` the bundle or checkpoint",
        )
    return kept
