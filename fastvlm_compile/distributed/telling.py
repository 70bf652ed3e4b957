"""A reporter in a worker: what it is told goes to the builds that wait for the task."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker

TOPIC = "fastvlm-compile"
"""Of the events; each is `{"task": name, "kind": method of Reporter, "arguments": [...]}`."""
_INTERVAL_S = 1.0


class StoppedError(Exception):
    """Nobody waits for the task any more: its build ended, or gave it up."""


class Telling:
    """Sends events through Dask's scheduler; progress not more often than once a second."""

    def __init__(self, worker: "Worker", task: str) -> None:
        self._worker = worker
        self._task = task
        self._told_s = 0.0

    def started(self, stage: str) -> None:
        self._send("started", stage)

    def progress(self, done: int, total: int, what: str) -> None:
        """Also where a running stage learns that nobody waits for it.

        Raises:
            StoppedError: that; the stage's process is ended with it.
        """
        state = self._worker.state.tasks.get(self._task)
        if state is None or state.state == "cancelled":
            raise StoppedError
        now_s = time.monotonic()
        if now_s - self._told_s >= _INTERVAL_S:
            self._told_s = now_s
            self._send("progress", done, total, what)

    def tell(self, stage: str, what: str) -> None:
        self._send("tell", stage, what)

    def note(self, text: str) -> None:
        self._send("note", text)

    def warning(self, text: str) -> None:
        self._send("warning", text)

    def beside(self) -> "Telling":
        return self

    def _send(self, kind: str, *arguments: str | int) -> None:
        event = {"task": self._task, "kind": kind, "arguments": list(arguments)}
        self._worker.log_event(TOPIC, event)
