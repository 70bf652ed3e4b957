"""The parent's side of a process that runs packages on one compute unit.

Core ML ends the whole process on some packages and compute units (an assertion of Metal's compiler
is enough), or never returns. Here that is an error that says so, and other units go on.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from reference.errors import UserError
from validation.runtimes.coreml_unit_messages import (
    Answer,
    Call,
    Opening,
    decode,
    encode,
    read_arrays,
    write_arrays,
)

CHILD = "validation.runtimes.coreml_unit_child"

_LAST_BREATH_S = 5.0
"""For a process that closed its end to be gone as well."""


class UnitEndedError(UserError):
    """The process of a compute unit is gone: nothing more can be run on it."""


class UnitRefusedError(UserError):
    """A call failed; the process lives on."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A result: text, arrays, or both."""

    text: str
    arrays: Mapping[str, np.ndarray]


class UnitProcess:
    """One process, which is started at once and ended by `end` or at the end of the `with`.

    Args:
        opening: what it runs.
        call_limit_s: a call that takes longer ends the process. The first calls compile packages.
        log: takes what the process and the libraries in it print; replaced.

    Raises:
        OSError: it cannot be started, or the log cannot be written.
    """

    def __init__(self, opening: Opening, *, call_limit_s: float, log: Path) -> None:
        self._units = opening.compute_units
        self._folder = Path(opening.folder)
        self._call_limit_s = call_limit_s
        self._num_calls = 0
        self._rest = b""
        self._ended = ""
        results, results_of_child = os.pipe()
        self._results = os.fdopen(results, "rb", buffering=0)
        try:
            with log.open("wb") as log_file:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", CHILD, str(results_of_child)],
                    stdin=subprocess.PIPE,
                    stdout=log_file,
                    stderr=log_file,
                    pass_fds=(results_of_child,),
                    start_new_session=True,  # a group to kill, and Ctrl-C is the parent's to handle
                )
        finally:
            os.close(results_of_child)
        self._send(encode(opening))

    @property
    def ended(self) -> str:
        """How the process ended against our will, empty while it runs."""
        return self._ended

    def call(self, call: Call, arrays: Mapping[str, np.ndarray] | None = None) -> Reply:
        """Has something computed and waits for it.

        Args:
            call: what; the file names are filled in here.
            arrays: the inputs.

        Raises:
            UnitRefusedError: it failed, and how.
            UnitEndedError: the process ended, now or in an earlier call.
        """
        if self._ended:
            raise UnitEndedError(self._ended)
        self._num_calls += 1
        inputs = self._folder / f"{self._num_calls}-in.npz"
        outputs = self._folder / f"{self._num_calls}-out.npz"
        if arrays is not None:
            write_arrays(inputs, arrays)
            call = replace(call, arrays=inputs.name)
        self._send(encode(replace(call, answer=outputs.name)))
        answer = self._receive(call.name)
        if answer.kind == "refused":
            raise UnitRefusedError(f"compute units {self._units}: {answer.text}", hint=answer.hint)
        try:
            return Reply(text=answer.text, arrays=read_arrays(outputs) if answer.has_arrays else {})
        except ValueError as error:
            raise self._give_up(f"the answer to {call.name} cannot be read: {error}") from None

    def end(self) -> None:
        """Ends the process with all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it died of is told when we listen
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _receive(self, what: str) -> Answer:
        deadline_s = time.monotonic() + self._call_limit_s
        while b"\n" not in self._rest:
            left_s = deadline_s - time.monotonic()
            ready, _, _ = select.select([self._results], [], [], max(0.0, left_s))
            if not ready:
                raise self._give_up(f"no answer to {what} within {self._call_limit_s:g} s")
            piece = os.read(self._results.fileno(), 1 << 16)
            if not piece:
                raise self._give_up(f"{self._how_it_ended()} during {what}")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            return decode(line, Answer)
        except ValueError as error:
            raise self._give_up(f"the answer to {what} is none: {error}") from None

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_LAST_BREATH_S)
        except subprocess.TimeoutExpired:
            return "the process stopped answering"
        if status < 0:
            return f"the process ended with signal {_signal_name(-status)}"
        return f"the process ended with exit code {status}"

    def _give_up(self, how: str) -> UnitEndedError:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._ended = f"compute units {self._units}: {how}"
        return UnitEndedError(self._ended)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
