"""The side of the referee: starts contestants and gives them turns, A B C A B C.

All of a contest are open at once and one of them runs at a time, so what drifts slowly and what
else the machine does meet all of them alike.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.contestant import Floats

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Who takes part: a name and the command of its process, `--answers` left out."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What a contestant did.

    Attributes:
        name: of the contestant.
        phases: seconds by phase; one block for each turn, in the order of time.
        peak_bytes: resident at its peak, of the whole process.
    """

    name: str
    phases: Mapping[str, tuple[tuple[float, ...], ...]]
    peak_bytes: int


class Player:
    """A contestant's process.

    Raises:
        RuntimeError: it ended before its last answer; its last words are in the message.
    """

    def __init__(
        self,
        entry: Entry,
        child: "subprocess.Popen[bytes]",
        *,
        answers: IO[bytes],
        log: IO[bytes],
    ) -> None:
        self.entry = entry
        self._child = child
        self._answers = answers
        self._log = log

    @classmethod
    def start(cls, entry: Entry, threads: int, stack: ExitStack) -> "Player":
        """Start it and wait until it is ready; it is killed when the stack is unwound."""
        log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        read, write = os.pipe()
        answers = stack.enter_context(os.fdopen(read, "rb"))
        child = subprocess.Popen(
            [*entry.command, "--answers", str(write)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(write,),
            cwd=ROOT,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )
        os.close(write)
        stack.callback(child.wait)
        stack.callback(child.kill)
        player = cls(entry, child, answers=answers, log=log)
        player._hear("ready")
        return player

    def turn(self) -> Mapping[str, list[float]]:
        """Seconds by phase."""
        self._say({"do": "turn"})
        seconds = self._hear("turn")
        assert isinstance(seconds, dict)
        return seconds

    def outputs(self, given: np.ndarray) -> Floats:
        """What it computes from an array."""
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: f"{folder}/{name}.npy" for name in ("given", "out")}
            np.save(paths["given"], given)
            self._say({"do": "outputs", **paths})
            self._hear("outputs")
            found: Floats = np.load(paths["out"])
        return found

    def end(self) -> int:
        """Its peak memory in bytes."""
        self._say({"do": "end"})
        peak = self._hear("peak_bytes")
        assert isinstance(peak, int)
        return peak

    def _say(self, request: object) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self._last_words()) from None

    def _hear(self, what: str) -> object:
        line = self._answers.readline()
        if not line:
            raise RuntimeError(self._last_words())
        return json.loads(line)[what]

    def _last_words(self) -> str:
        self._child.wait()
        self._log.seek(0)
        tail = self._log.read().decode(errors="replace")[-3000:]
        return f"{self.entry.name} ended with {self._child.returncode}:\n{tail}"


@contextmanager
def open_players(entries: Sequence[Entry], threads: int) -> Iterator[list[Player]]:
    """All of them, ready; gone at the end."""
    with ExitStack() as stack:
        yield [Player.start(entry, threads, stack) for entry in entries]


def hold_contest(players: Sequence[Player], num_rounds: int) -> tuple[Timed, ...]:
    """One warm-up round that does not count, then so many; ends the players."""
    blocks: list[list[Mapping[str, list[float]]]] = [[] for _ in players]
    for number in range(num_rounds + 1):
        for player, done in zip(players, blocks, strict=True):
            turn = player.turn()
            if number > 0:
                done.append(turn)
    return tuple(
        Timed(
            name=player.entry.name,
            phases={phase: tuple(tuple(each[phase]) for each in done) for phase in done[0]},
            peak_bytes=player.end(),
        )
        for player, done in zip(players, blocks, strict=True)
    )
