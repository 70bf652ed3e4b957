"""The process of one compute unit: `python -m validation.runtimes.coreml_unit_child RESULT_FD`.

Reads an `Opening` and then `Call`s from stdin, one JSON object a line, and writes an `Answer` for
each to the descriptor RESULT_FD. Ends when stdin ends. A failure inside a call is answered; a
failure that takes the process along is for the parent to see.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from reference.decoding import Session
from reference.errors import UserError
from validation.runtimes.base import Floats
from validation.runtimes.coreml_unit_messages import (
    Answer,
    Call,
    Opening,
    decode,
    encode,
    read_arrays,
    write_arrays,
)
from validation.typed_json import to_plain

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Packages opened on one compute unit, as functions; all raise UserError for what is missing.

    Attributes:
        executor: the program and version that computes.
        vision_features: [1, 3, S, S] -> [1, T, C].
        project: [1, T, C] -> [1, T, H].
        logits_after: pieces of rows -> [pieces, V].
        session: [1, L, H] -> a decoding.
        read_caches: [L, H] -> what the decoder remembers, see `coreml_unit_states`.
        compute_plans: where the parts of every package would run, as a value that `to_plain` takes.
    """

    executor: str
    vision_features: Callable[[Floats], Floats]
    project: Callable[[Floats], Floats]
    logits_after: Callable[[list[Floats]], Floats]
    session: Callable[[Floats], Session]
    read_caches: Callable[[Floats], Mapping[str, np.ndarray]]
    compute_plans: Callable[[], object]


Factory = Callable[[Opening], Unit]
"""Opens packages; the function that `Opening.factory` names."""


def main(result_fd: int) -> None:
    """Serves calls until stdin ends."""
    os.set_inheritable(result_fd, False)  # noqa: FBT003 - it takes no keywords
    requests = sys.stdin.buffer
    with os.fdopen(result_fd, "wb", buffering=0) as results:
        opening = decode(requests.readline(), Opening)
        server: Server | None = None
        for line in requests:
            call = decode(line, Call)
            try:
                server = server or Server(_open(opening), Path(opening.folder))
                answer = server.serve(call)
            except UserError as error:
                answer = Answer(kind="refused", text=error.message, hint=error.hint)
            except Exception as error:  # noqa: BLE001 - this is the process's border
                traceback.print_exc()
                answer = Answer(kind="refused", text=f"{type(error).__name__}: {error}")
            _tell(results, answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libraries with threads of their own may hang in an orderly exit


class Server:
    """Answers calls.

    Args:
        unit: what computes.
        folder: where arrays are exchanged.
    """

    def __init__(self, unit: Unit, folder: Path) -> None:
        self._unit = unit
        self._folder = folder
        self._sessions: dict[int, Session] = {}

    def serve(self, call: Call) -> Answer:
        """Computes one call.

        Raises:
            UserError: the packages cannot do it.
        """
        for number in call.forget:
            self._sessions.pop(number, None)
        given = read_arrays(self._folder / call.arrays) if call.arrays else {}
        match call.name:
            case "executor":
                return Answer(kind="done", text=self._unit.executor)
            case "compute_plans":
                return Answer(kind="done", text=_json(self._unit.compute_plans()))
            case "read_caches":
                found = dict(self._unit.read_caches(given["rows"]))
            case "vision_features":
                found = {"result": self._unit.vision_features(given["rows"])}
            case "project":
                found = {"result": self._unit.project(given["rows"])}
            case "logits_after":
                pieces = [given[str(index)] for index in range(len(given))]
                found = {"result": self._unit.logits_after(pieces)}
            case "start" | "step" | "select":
                found = self._decode(call, given["rows"])
        write_arrays(self._folder / call.answer, found)
        return Answer(kind="done", has_arrays=True)

    def _decode(self, call: Call, rows: np.ndarray) -> Arrays:
        if call.name == "start":
            self._sessions[call.session] = session = self._unit.session(rows)
            return {"result": session.start()}
        session = self._sessions[call.session]
        if call.name == "step":
            return {"result": session.step(rows)}
        session.select(rows)
        return {}


def _open(opening: Opening) -> Unit:
    sys.path[:] = opening.search_path
    module_name, _, name = opening.factory.partition(":")
    factory: Factory = getattr(importlib.import_module(module_name), name)
    return factory(opening)


def _json(value: object) -> str:
    import json

    return json.dumps(to_plain(value))


def _tell(results: IO[bytes], answer: Answer) -> None:
    results.write(encode(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]))
