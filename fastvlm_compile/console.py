"""What a build shows on stderr: one line per stage, and on a terminal a live line below them."""

import time
from dataclasses import dataclass
from typing import Protocol, TextIO

_NAME_WIDTH = 26  # of the longest stage name, `onnx.decoder_model_merged`
_CLEAR_LINE = "\r\x1b[K"


class Reporter(Protocol):
    """Told of every turn of a build."""

    def started(self, stage: str) -> None:
        """The stage's child process starts."""

    def progress(self, done: int, total: int, what: str) -> None:
        """The running stage is at `what`, `done` of `total`; also called as time passes."""

    def tell(self, stage: str, what: str) -> None:
        """A line about a stage: `hit`, `built in 4.2 s, ...`, `failed`, `waits for ...`."""

    def note(self, text: str) -> None:
        """Something worth a line of its own."""

    def warning(self, text: str) -> None:
        """Something that should not have been."""


@dataclass(frozen=True, kw_only=True)
class LineReporter:
    """One line per stage, when it is done: for logs and for `--quiet`."""

    stream: TextIO

    def started(self, stage: str) -> None:
        del stage

    def progress(self, done: int, total: int, what: str) -> None:
        del done, total, what

    def tell(self, stage: str, what: str) -> None:
        self.note(f"{stage.ljust(_NAME_WIDTH)}  {what}")

    def note(self, text: str) -> None:
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def warning(self, text: str) -> None:
        self.note(f"warning: {text}")


class LiveReporter:
    """As `LineReporter`, with a last line that shows what runs, how far it is and for how long."""

    def __init__(self, *, stream: TextIO, columns: int) -> None:
        self._lines = LineReporter(stream=stream)
        self._stream = stream
        self._columns = columns
        self._stage = ""
        self._started_s = 0.0

    def started(self, stage: str) -> None:
        self._stage = stage
        self._started_s = time.monotonic()
        self.progress(0, 0, "")

    def progress(self, done: int, total: int, what: str) -> None:
        elapsed = format_duration(time.monotonic() - self._started_s)
        share = f"  {done}/{total}" if total else ""
        line = f"{self._stage}  {elapsed}{share}  {what}".rstrip()
        self._stream.write(f"{_CLEAR_LINE}{line[: self._columns - 1]}")
        self._stream.flush()

    def tell(self, stage: str, what: str) -> None:
        self._stream.write(_CLEAR_LINE)
        self._lines.tell(stage, what)

    def note(self, text: str) -> None:
        self._stream.write(_CLEAR_LINE)
        self._lines.note(text)

    def warning(self, text: str) -> None:
        self._stream.write(_CLEAR_LINE)
        self._lines.warning(text)


def format_duration(duration_s: float) -> str:
    """`4.2 s`, `3 min 05 s`, `1 h 02 min`."""
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_bytes(size_bytes: int) -> str:
    """`512 B`, `3.4 MB`, `1.1 GB`, in powers of ten."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} B"
