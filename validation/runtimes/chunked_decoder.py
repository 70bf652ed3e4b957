"""Decoding over packages with `prefill` and `decode`, whatever executes them.

The meaning of inputs, padding and caches is that of `language.json`'s exporter
(`fastvlm_compile/export/coreml/language/interface.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np

from reference.decoding import Logits
from reference.errors import UserError
from reference.kept import NOTHING_KEPT, Kept
from validation.runtimes.base import Floats
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

_SEEN = "seen inside"


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

    def rest(self) -> None:
        """Told when the program will not be needed for a while: what it holds may be let go."""
        ...

    def seen(self) -> bytes:
        """What was noticed of the values inside until now; empty if nobody looks."""
        ...

    def recall(self, seen: bytes) -> None:
        """Have noticed this, and no more: what an equal program had `seen` after equal runs."""
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
        logits = np.empty(0, dtype=np.float32)
        for call in self._calls(rows, memory.length):
            hidden, pieces = call.padded, [np.empty(0, dtype=np.float32)]
            for (chunk, program), kept in zip(self._chunks, memory.chunks, strict=True):
                if chunk.layers is None and not call.wanted:
                    continue
                result = _run(chunk, program, call, hidden, kept)
                if chunk.vocabulary is None:
                    hidden = result
                else:  # pieces of the head all start from the same rows
                    pieces.append(_flat(result))
            memory.length += call.count
            logits = np.concatenate(pieces)
        return logits

    def append_all(
        self, sequences: Sequence[Sequence[Floats]], *, kept: Kept = NOTHING_KEPT
    ) -> list[Floats]:
        """What `append` gives for piece after piece of every sequence, each from nothing.

        Everything is run in the first chunk, then in the second: a chunk's weights are needed once,
        not once a call, and those of one chunk at a time.

        Args:
            sequences: of pieces [L, H], L at least 1.
            kept: what came out of each chunk.

        Returns:
            [pieces, V] for each sequence.

        Raises:
            ContextFullError: the context has no room for a sequence; nothing is run.
        """
        planned = [self._planned(pieces) for pieces in sequences]
        hidden = [[call.padded for call in calls] for calls in planned]
        logits: list[list[np.ndarray]] = [[] for _ in sequences]
        for index, (chunk, program) in enumerate(self._chunks):
            made = kept.arrays(f"chunk {index}", partial(_run_all, chunk, program, planned, hidden))
            program.recall(made[_SEEN].tobytes())
            for number, calls in enumerate(planned):
                results = [
                    made[f"{number} {place}"]
                    for place, call in enumerate(calls)
                    if chunk.layers is not None or call.wanted
                ]
                if chunk.vocabulary is None:
                    hidden[number] = results
                    continue
                if chunk.layers is not None:
                    pairs = zip(results, calls, strict=True)
                    results = [result for result, call in pairs if call.wanted]
                logits[number].append(np.stack([_flat(result) for result in results]))
            program.rest()
        return [np.concatenate(pieces, axis=1) for pieces in logits]

    def _planned(self, pieces: Sequence[Floats]) -> "list[_Call]":
        calls: list[_Call] = []
        for piece in pieces:
            calls += self._calls(piece, sum(call.count for call in calls))
        return calls

    def _calls(self, rows: Floats, position: int) -> "list[_Call]":
        """The calls that take rows in behind `position` others; logits are wanted of the last."""
        room = self.layout.context_length - position
        if len(rows) > room:
            raise ContextFullError(
                f"{len(rows)} positions are wanted, the context of "
                f"{self.layout.context_length} has room for {room}",
                hint="shorten the prompt, or build with a larger context_length",
            )
        calls = []
        while len(rows):
            function, count = self._next(len(rows), position)
            length = 1 if function == "decode" else self.layout.prefill_chunk
            taken, rows = rows[:count], rows[count:]
            padded = np.concatenate([taken, np.repeat(taken[-1:], length - count, axis=0)])
            calls.append(
                _Call(
                    function=function,
                    padded=padded[None],
                    position=position,
                    count=count,
                    wanted=not len(rows),
                )
            )
            position += count
        return calls

    def _next(self, num_rows: int, position: int) -> tuple[FunctionName, int]:
        """Which function, and how many rows it takes."""
        chunk = self.layout.prefill_chunk
        if num_rows == 1 or position + chunk > self.layout.cache_length:
            return "decode", 1
        return "prefill", min(chunk, num_rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """One call of every chunk.

    Attributes:
        function: which of the two.
        padded: [1, T, H]; padding repeats the last row, as a row of zeros would have no norm.
        position: of the first row.
        count: rows that are none of padding.
        wanted: whether logits are; where not, chunks without layers are left out.
    """

    function: FunctionName
    padded: np.ndarray
    position: int
    count: int
    wanted: bool


def _run_all(
    chunk: ChunkLayout,
    program: ChunkProgram[S],
    planned: "Sequence[Sequence[_Call]]",
    hidden: Sequence[Sequence[np.ndarray]],
    _: Kept,
) -> dict[str, np.ndarray]:
    """What came of every call of every sequence that a chunk takes, `<sequence> <call>`."""
    made: dict[str, np.ndarray] = {}
    for number, calls in enumerate(planned):
        memory = _ChunkMemory(state=program.new_state(), cache=_zeros(chunk))
        for place, (call, rows) in enumerate(zip(calls, hidden[number], strict=True)):
            if chunk.layers is not None or call.wanted:
                result = _run(chunk, program, call, rows, memory)
                made[f"{number} {place}"] = np.ascontiguousarray(result)
    made[_SEEN] = np.array(bytearray(program.seen()), dtype=np.uint8)
    return made


def _run(
    chunk: ChunkLayout,
    program: ChunkProgram[S],
    call: _Call,
    hidden: np.ndarray,
    kept: _ChunkMemory[S],
) -> np.ndarray:
    """One call of one chunk: what came out of the one before it -> rows or logits."""
    layout = chunk.functions[call.function]
    numbers = {POSITION: call.position, NUM_VALID: call.count}
    inputs = {**_inputs(layout, hidden, numbers), **kept.cache}
    outputs = program.run(call.function, inputs, kept.state)
    kept.cache = {t.name: outputs[t.updated] for t in chunk.cache if t.updated}
    return outputs[layout.outputs[0].name]


def _flat(logits: np.ndarray) -> Floats:
    return logits.reshape(-1).astype(np.float32)


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
