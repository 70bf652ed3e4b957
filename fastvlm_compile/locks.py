"""Locks between processes, freed by the kernel when their holders die however they die."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def exclusive(
    path: Path, *, note: str, on_wait: Callable[[str], None] = lambda _holder: None
) -> Iterator[int]:
    """Hold a lock alone; wait for whoever holds it.

    Yields a descriptor of the lock. A child that inherits it holds the lock with us, and on its own
    if we are killed; when the block ends, the lock is free whoever has the descriptor still.

    Args:
        path: the lock file; made when missing, left behind empty.
        note: who we are, for the message of those who wait for us.
        on_wait: told the holder's note before the waiting begins.
    """
    with path.open("a+", encoding="utf-8") as file:
        if not _try(file, fcntl.LOCK_EX):
            file.seek(0)
            on_wait(file.read().strip())
            fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file, f"process {os.getpid()}: {note}")
        try:
            yield file.fileno()
        finally:
            _sign(file, "")
            fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def exclusive_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock alone if nobody holds it; yields whether that worked."""
    with path.open("a+", encoding="utf-8") as file:
        yield _try(file, fcntl.LOCK_EX)


@contextlib.contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold a lock together with others who share it; wait for whoever holds it alone."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(file: IO[str], note: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(note)
    file.flush()
