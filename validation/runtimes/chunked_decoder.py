"""Decoding over packages with `prefill` and `decode`, whatever executes them.

The meaning of inputs, padding and caches is that of `language.json`'s exporter
(`fastvlm_compile/export/coreml/language/interface.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from reference.decoding import Logits
from reference.errors import UserError
from validation.runtimes.base import Floats, Ids
from validation.runtimes.language_layout import (
    ChunkLayout,
    FunctionLayout,
    FunctionName,
    LanguageLayout,
)

POSITION = "position"
NUM_VALID = "num_valid"

Arrays = Mapping[str, np.ndarray]
S = TypeVar("S")


class ContextFullError(UserError):
    """More positions are wanted than the decoder has."""


class ChunkProgram(Protocol[S]):
    """One package of the decoder, ready to run. S is what it calls its state."""

    def new_state(self) -> S:
        """A fresh state, all zeros; both functions share it."""
        ...

    def copy_state(self, state: S) -> S:
        """An independent copy."""
        ...

    def run(self, function: FunctionName, inputs: Arrays, state: S) -> Arrays:
        """Runs a function once; arrays by name, of the declared types."""
        ...


@dataclass(kw_only=True)
class _ChunkMemory(Generic[S]):
    """State of a chunk, and its cache where that is passed in and out."""

    state: S
    cache: dict[str, np.ndarray]


@dataclass(kw_only=True)
class Memory(Generic[S]):
    """What a decoder remembers of one row of text: `length` positions."""

    length: int
    chunks: list[_ChunkMemory[S]]


class ChunkedDecoder(Generic[S]):
    """All chunks of a decoder in order.

    Args:
        layout: what the packages are.
        programs: what runs them, one per chunk.
    """

    def __init__(self, layout: LanguageLayout, programs: Sequence[ChunkProgram[S]]) -> None:
        self.layout = layout
        self._chunks = list(zip(layout.chunks, programs, strict=True))

    def new_memory(self) -> Memory[S]:
        """Nothing decoded yet."""
        chunks = [
            _ChunkMemory(state=program.new_state(), cache=_zeros(chunk))
            for chunk, program in self._chunks
        ]
        return Memory(length=0, chunks=chunks)

    def copy(self, memory: Memory[S]) -> Memory[S]:
        """An independent copy, for another beam."""
        pairs = zip(self._chunks, memory.chunks, strict=True)
        chunks = [
            _ChunkMemory(state=program.copy_state(chunk.state), cache=dict(chunk.cache))
            for (_, program), chunk in pairs
        ]
        return Memory(length=memory.length, chunks=chunks)

    def append(self, rows: Floats, memory: Memory[S]) -> Logits:
        """Takes rows in behind what is remembered.

        Args:
            rows: [L, H], L at least 1.
            memory: grows by L positions.

        Returns:
            Logits after the last row, float32 [V].

        Raises:
            ContextFullError: the context has no room for the rows.
        """
        room = self.layout.context_length - memory.length
        if len(rows) > room:
            raise ContextFullError(
                f"{len(rows)} positions are wanted, the context of "
                f"{self.layout.context_length} has room for {room}",
                hint="shorten the prompt, or build with a larger context_length",
            )
        logits = np.empty(0, dtype=np.float32)
        while len(rows):
            function, count = self._next(len(rows), memory.length)
            taken, rows = rows[:count], rows[count:]
            logits = self._step(function, taken, memory, wanted=not len(rows))
        return logits

    def _next(self, num_rows: int, position: int) -> tuple[FunctionName, int]:
        """Which function, and how many rows it takes."""
        chunk = self.layout.prefill_chunk
        if num_rows == 1 or position + chunk > self.layout.cache_length:
            return "decode", 1
        return "prefill", min(chunk, num_rows)

    def _step(
        self, function: FunctionName, rows: Floats, memory: Memory[S], *, wanted: bool
    ) -> Logits:
        """One call of every chunk; where no logits are wanted, chunks without layers are left out.

        Padding repeats the last row, as a row of zeros would have no norm.
        """
        count = len(rows)
        length = 1 if function == "decode" else self.layout.prefill_chunk
        padded = np.concatenate([rows, np.repeat(rows[-1:], length - count, axis=0)])
        hidden: np.ndarray = padded[None]
        pieces = [np.empty(0, dtype=np.float32)]
        numbers = {POSITION: memory.length, NUM_VALID: count}
        for (chunk, program), kept in zip(self._chunks, memory.chunks, strict=True):
            if chunk.layers is None and not wanted:
                continue
            layout = chunk.functions[function]
            inputs = {**_inputs(layout, hidden, numbers), **kept.cache}
            outputs = program.run(function, inputs, kept.state)
            kept.cache = {t.name: outputs[t.updated] for t in chunk.cache if t.updated}
            result = outputs[layout.outputs[0].name]
            if chunk.vocabulary is None:
                hidden = result
            else:  # pieces of the head all start from the same rows
                pieces.append(result.reshape(-1).astype(np.float32))
        memory.length += count
        return np.concatenate(pieces)


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


def _inputs(
    layout: FunctionLayout, hidden: np.ndarray, numbers: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The rows in the declared type, and those numbers that the function takes."""
    rows = layout.inputs[0]
    given = {rows.name: hidden.astype(rows.dtype)}
    for port in layout.inputs[1:]:
        if port.name in numbers:
            given[port.name] = np.array([numbers[port.name]], dtype=port.dtype)
    return given


def _zeros(chunk: ChunkLayout) -> dict[str, np.ndarray]:
    return {
        tensor.name: np.zeros(tensor.shape, dtype=tensor.dtype)
        for tensor in chunk.cache
        if tensor.updated
    }
