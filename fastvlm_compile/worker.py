"""The child process of one stage: `python -m fastvlm_compile.worker RESULT_FD`.

Reads a `Request` as one line of JSON from stdin, runs the stage's function and writes messages, one
JSON object a line, to the descriptor RESULT_FD. stdout and stderr are the stage's log. When stdin
ends, the parent is gone, and the process with all its children ends at once.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, get_type_hints

from fastvlm_compile.durable import explain
from fastvlm_compile.errors import StoreError
from fastvlm_compile.kept import KeptWork
from fastvlm_compile.structure import from_plain, to_plain
from reference.errors import UserError

_PROGRESS_INTERVAL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Request:
    """One stage to run; the config travels beside it, for its type is the function's to know."""

    function: str
    inputs: Mapping[str, str]
    """Role -> absolute folder."""
    out: str
    """Absolute folder, empty."""
    search_path: tuple[str, ...]
    """Where modules are looked for: the parent's `sys.path`."""
    kept: str = ""
    """Absolute folder of the pieces of a resumable stage's work; empty for another one."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a worker tells its parent."""

    kind: Literal["progress", "done", "user error", "internal error"]
    text: str = ""
    """What is at hand, or what went wrong."""
    hint: str = ""
    error_class: str = ""
    """`module:name` of the error."""
    done: int = 0
    total: int = 0


def encode_request(request: Request, config: object) -> bytes:
    """A request as the line that the worker reads."""
    return json.dumps({"request": to_plain(request), "config": to_plain(config)}).encode() + b"\n"


def decode_message(line: bytes) -> Message:
    """A line that a worker wrote."""
    return from_plain(json.loads(line), Message)


def main(result_fd: int) -> None:
    """Run the stage that stdin asks for, tell how it ended, and exit."""
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.set_inheritable(result_fd, False)  # noqa: FBT003 - it takes no keywords
    results = os.fdopen(result_fd, "w", encoding="utf-8", buffering=1)
    document = json.loads(line)
    request = from_plain(document["request"], Request)
    _tell(results, _run(request, document["config"], results))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libraries with threads of their own may hang or crash in an orderly exit


def _run(request: Request, config: object, results: IO[str]) -> Message:
    try:
        sys.path[:] = request.search_path
        module_name, _, name = request.function.partition(":")
        function = getattr(importlib.import_module(module_name), name)
        kind = get_type_hints(function)["config"]
        inputs = {role: Path(folder) for role, folder in request.inputs.items()}
        value = None if kind is types.NoneType else from_plain(config, kind)
        kept = {"kept": KeptWork(folder=Path(request.kept))} if request.kept else {}
        function(value, inputs, Path(request.out), _Reporter(results), **kept)
    except UserError as error:
        return _user_error(error)
    except OSError as error:
        refusal = explain(error, StoreError, Path(request.out))
        if refusal is None:
            return _internal_error(error)
        traceback.print_exc()
        return _user_error(refusal)
    except Exception as error:  # noqa: BLE001 - this is the child's border, as cli.main is ours
        return _internal_error(error)
    return Message(kind="done")


def _user_error(error: UserError) -> Message:
    kind = type(error)
    return Message(
        kind="user error",
        text=error.message,
        hint=error.hint,
        error_class=f"{kind.__module__}:{kind.__qualname__}",
    )


def _internal_error(error: Exception) -> Message:
    traceback.print_exc()
    return Message(kind="internal error", text=f"{type(error).__name__}: {error}")


class _Reporter:
    """A `Progress` that tells the parent, not more often than it can be seen."""

    def __init__(self, results: IO[str]) -> None:
        self._results = results
        self._told_s = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        now_s = time.monotonic()
        if done >= total or now_s - self._told_s >= _PROGRESS_INTERVAL_S:
            self._told_s = now_s
            _tell(self._results, Message(kind="progress", text=what, done=done, total=total))


def _tell(results: IO[str], message: Message) -> None:
    results.write(json.dumps(to_plain(message)) + "\n")
    results.flush()


def _die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    # We lead a session of our own (see `child.py`), so this takes our children along.
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
