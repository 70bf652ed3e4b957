"""A `Session` over a decoder in packages: every row of a beam has a memory of its own."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from reference.decoding import Logits
from validation.runtimes.base import Floats, Ids
from validation.runtimes.chunked_decoder import ChunkedDecoder, Memory

S = TypeVar("S")


class ChunkedSession(Generic[S]):
    """A `Session` over a chunked decoder; a row of the beam is a memory of its own.

    Args:
        decoder: the packages.
        embed: token ids [B] -> embeddings [B, H].
        prompt: [L, H].
    """

    def __init__(
        self, decoder: ChunkedDecoder[S], embed: Callable[[Ids], Floats], prompt: Floats
    ) -> None:
        self._decoder = decoder
        self._embed = embed
        self._prompt = prompt
        self._memories: list[Memory[S]] = []

    def start(self) -> Logits:
        """Runs the prompt: logits after it, float32 [1, V]."""
        self._memories = [self._decoder.new_memory()]
        return self._decoder.append(self._prompt, self._memories[0])[None]

    def step(self, token_ids: Ids) -> Logits:
        """Appends one token per row, [B]; the next logits, float32 [B, V]."""
        rows = self._embed(token_ids)
        return np.stack(
            [
                self._decoder.append(row[None], memory)
                for row, memory in zip(rows, self._memories, strict=True)
            ]
        )

    def select(self, rows: Ids) -> None:
        """Row i becomes row `rows[i]`; only rows that are kept twice are copied."""
        selected: list[Memory[S]] = []
        used: set[int] = set()
        for row in map(int, rows):
            memory = self._memories[row]
            selected.append(self._decoder.copy(memory) if row in used else memory)
            used.add(row)
        self._memories = selected
