"""Progress of a session on stderr: one live line on a terminal, a line now and then in a log."""

import contextlib
import shutil
import sys
from collections.abc import Iterator

from fastvlm_compile.commands.progress_lines import progress_on_stderr
from fastvlm_compile.console import LiveReporter
from fastvlm_compile.progress import Progress


@contextlib.contextmanager
def live_progress() -> Iterator[Progress]:
    """Whichever suits stderr; the live line is gone when the work is done."""
    if not sys.stderr.isatty():
        yield progress_on_stderr()
        return
    live = LiveReporter(stream=sys.stderr, columns=shutil.get_terminal_size().columns)
    live.started("latency")
    try:
        yield live.progress
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
