"""Counting what is done, for whoever watches."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is at hand)."""


class Steps:
    """Counts towards a total known beforehand."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def begin(self, what: str) -> None:
        """Tells that `what` begins, and all before it is done."""
        self._progress(self._done, self._total, what)
        self._done += 1

    def end(self) -> None:
        """Tells that everything is done."""
        self._progress(self._total, self._total, "done")
