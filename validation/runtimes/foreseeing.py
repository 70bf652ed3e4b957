"""The PyTorch reference where its prompts are known beforehand: it decodes them all together.

A model that is streamed is then read once a token for all prompts, not once for each.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from reference.decoding import GenerationSettings, Ids, Logits, Session
from reference.kept import NOTHING_KEPT, Kept
from reference.lockstep import greedy_together
from validation.runtimes.base import Floats
from validation.runtimes.torch_runtime import TorchRuntime

if TYPE_CHECKING:
    from reference.fastvlm import FastVLM


class ForeseeingRuntime(TorchRuntime):
    """As `TorchRuntime`; the sessions of foreseen prompts hand on what was computed before."""

    def __init__(self, model: "FastVLM") -> None:
        super().__init__(model)
        self._foreseen: dict[bytes, tuple[list[Logits], GenerationSettings]] = {}

    def foresee(
        self, prompts: Sequence[Floats], settings: GenerationSettings, kept: Kept = NOTHING_KEPT
    ) -> None:
        """Decode prompts [1, L, H] with greedy settings; what an earlier run has kept, is taken.

        Raises:
            GenerationError: a logit is not finite.
        """
        rows: list[list[Logits]] = [[] for _ in prompts]
        greedy_together(
            self._model.language,
            [torch.from_numpy(each) for each in prompts],
            settings,
            on_logits=lambda number, logits: rows[number].append(logits),
            kept=kept,
        )
        self._foreseen = {
            prompt.tobytes(): (given, settings) for prompt, given in zip(prompts, rows, strict=True)
        }

    def session(self, inputs_embeds: Floats) -> Session:
        """A decoding of the prompt [1, L, H]: a new one, or once what was foreseen of it."""
        found = self._foreseen.pop(inputs_embeds.tobytes(), None)
        return super().session(inputs_embeds) if found is None else _Replayed(*found)


class _Replayed:
    """A greedy decoding that has been."""

    def __init__(self, rows: list[Logits], settings: GenerationSettings) -> None:
        self._rows = rows
        self._vocab_limit = settings.vocab_limit
        self._next = 0

    def start(self) -> Logits:
        """Float32 [1, V]."""
        return self._rows[0]

    def step(self, token_ids: Ids) -> Logits:
        """Float32 [1, V]; the token must be the one that was chosen then."""
        chosen = int(np.argmax(self._rows[self._next][0, : self._vocab_limit]))
        assert token_ids.tolist() == [chosen], "another decoding than the foreseen one"
        self._next += 1
        return self._rows[self._next]

    def select(self, rows: Ids) -> None:
        """Greedy decoding has one row."""
        assert rows.tolist() == [0]
