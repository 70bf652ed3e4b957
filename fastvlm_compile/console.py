"""What builds show on stderr: a line per stage, and on a terminal live lines below of what runs."""

import threading
import time
from dataclasses import dataclass
from typing import Protocol, TextIO

_NAME_WIDTH = 26  # of the longest stage name, `onnx.decoder_model_merged`
_CLEAR_LINE = "\r\x1b[K"
_LINE_UP = "\x1b[1A"
_MAX_LIVE_LINES = 16


class Reporter(Protocol):
    """Told of every turn of a build; of one stage after the other."""

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

    def beside(self) -> "Reporter":
        """Another one of the same view, for a stage that runs at the same time."""


@dataclass(frozen=True, kw_only=True)
class LineReporter:
    """One line per stage, when it is done: for logs and for `--quiet`."""

    stream: TextIO
    label: str = ""
    """Stands before every line, where several recipes share the view."""

    def started(self, stage: str) -> None:
        del stage

    def progress(self, done: int, total: int, what: str) -> None:
        del done, total, what

    def tell(self, stage: str, what: str) -> None:
        self.note(f"{stage.ljust(_NAME_WIDTH)}  {what}")

    def note(self, text: str) -> None:
        self.stream.write(f"{self.label}{text}\n")
        self.stream.flush()

    def warning(self, text: str) -> None:
        self.stream.write(f"warning: {self.label}{text}\n")
        self.stream.flush()

    def beside(self) -> "LineReporter":
        return self


class LiveLines:
    """The last lines of a terminal, each kept up to date by its owner; may be called by threads."""

    def __init__(self, *, stream: TextIO, columns: int) -> None:
        self._stream = stream
        self._columns = columns
        self._lines: dict[object, str] = {}
        self._num_shown = 0
        self._lock = threading.Lock()

    def show(self, owner: object, line: str) -> None:
        """Replace the owner's line, or add it."""
        with self._lock:
            self._lines[owner] = line
            self._draw("")

    def write(self, text: str, *, without: object = None) -> None:
        """Write whole lines that stay, above the live ones; `without` has no live line from now."""
        with self._lock:
            self._lines.pop(without, None)
            self._draw(text)

    def _draw(self, text: str) -> None:
        clear = _CLEAR_LINE + (_LINE_UP + _CLEAR_LINE) * (self._num_shown - 1)
        shown = [line[: self._columns - 1] for line in self._lines.values()][:_MAX_LIVE_LINES]
        self._num_shown = len(shown)
        self._stream.write(clear + text + "\n".join(shown))
        self._stream.flush()


class LiveReporter:
    """As `LineReporter`, with a live line that shows what runs, how far it is and for how long."""

    def __init__(
        self, *, stream: TextIO, columns: int, label: str = "", lines: LiveLines | None = None
    ) -> None:
        """`lines` are those of a view that is shared; otherwise it is this reporter's alone."""
        self._stream = stream
        self._columns = columns
        self._label = label
        self._lines = lines or LiveLines(stream=stream, columns=columns)
        self._stage = ""
        self._started_s = 0.0

    def started(self, stage: str) -> None:
        self._stage = stage
        self._started_s = time.monotonic()
        self.progress(0, 0, "")

    def progress(self, done: int, total: int, what: str) -> None:
        elapsed = format_duration(time.monotonic() - self._started_s)
        share = f"  {done}/{total}" if total else ""
        line = f"{self._label}{self._stage}  {elapsed}{share}  {what}".rstrip()
        self._lines.show(self, line)

    def tell(self, stage: str, what: str) -> None:
        line = f"{self._label}{stage.ljust(_NAME_WIDTH)}  {what}\n"
        self._lines.write(line, without=self)

    def note(self, text: str) -> None:
        self._lines.write(f"{self._label}{text}\n")

    def warning(self, text: str) -> None:
        self._lines.write(f"warning: {self._label}{text}\n")

    def beside(self) -> "LiveReporter":
        return LiveReporter(
            stream=self._stream, columns=self._columns, label=self._label, lines=self._lines
        )


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
