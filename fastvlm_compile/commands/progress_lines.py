"""Progress of work that is no build: a line on stderr now and then."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastvlm_compile.progress import Progress

_LINE_EVERY_S = 5.0


def progress_on_stderr() -> "Progress":
    """A line now and then: what is at hand, how far, for how long."""
    started_s = last_s = time.monotonic()

    def show(done: int, total: int, what: str) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= _LINE_EVERY_S:
            last_s = now_s
            share = 100 * done // max(1, total)
            sys.stderr.write(f"{now_s - started_s:5.0f} s  {share:3d} %  {what}\n")
            sys.stderr.flush()

    return show
