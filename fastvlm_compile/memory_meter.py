"""The most memory that a process and everything it starts have at one time (Linux).

Counted is what the machine must have: pages that were allocated, shared ones too (`RssAnon` and
`RssShmem` of proc(5)). Not counted are pages of mapped files, which the system can drop while they
are clean. That they are dirty is told by no cheap file of /proc, so a file that is written through
a mapping counts as resident alone. Pages that a fork shares count once for each process.
"""

import contextlib
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_PROC = Path("/proc")
_PAGES = ("RssAnon", "RssFile", "RssShmem")
_ALLOCATED = ("RssAnon", "RssShmem")
_FORK_LOOKS = 20
"""After which a process that has only forked counts all the same: a second, by default."""
_START_FIELD = 19
"""Of /proc/PID/stat, counted behind the name: clock ticks from the start of the machine."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a whole tree of processes.

    Attributes:
        allocated: what the machine must have.
        resident: with the mapped files that happen to be in memory.
    """

    allocated: int = 0
    resident: int = 0

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(
            allocated=self.allocated + other.allocated, resident=self.resident + other.resident
        )

    def most(self, other: "Memory") -> "Memory":
        """The larger of each."""
        return Memory(
            allocated=max(self.allocated, other.allocated),
            resident=max(self.resident, other.resident),
        )


class MemoryMeter:
    """Looks at a process and its descendants again and again, in a thread of its own.

    Args:
        pid: of a process that was just started.
        interval_s: between two looks; a peak that is shorter may be missed.
    """

    def __init__(self, pid: int, *, interval_s: float = 0.05) -> None:
        self._tree = _Tree(pid)
        self._interval_s = interval_s
        self._peak = Memory()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory meter", daemon=True)

    @staticmethod
    def works_here() -> bool:
        """Whether this system tells what the meter counts."""
        return sys.platform == "linux"

    @property
    def peak(self) -> Memory:
        """The most so far; of nothing where the meter does not work."""
        return self._peak

    def __enter__(self) -> Self:
        if self.works_here():
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._peak = self._peak.most(self._tree.memory())
            self._ended.wait(self._interval_s)


class _Tree:
    """A process and its descendants, those as well whose parent has ended."""

    def __init__(self, pid: int) -> None:
        self._members = {pid: _Member(started=_started(pid), command="", looks_left=0)}

    def memory(self) -> Memory:
        """What its living members have now.

        From fork to exec a process shows the pages of its parent as its own, and its command: such
        a one counts only when it stays like that.
        """
        total, new = Memory(), list[tuple[int, int]]()
        for pid, member in list(self._members.items()):
            if not member.started or _started(pid) != member.started:
                del self._members[pid]  # it is gone, and another may have its number by now
                continue
            if member.looks_left and _command(pid) == member.command:
                member.looks_left -= 1
            else:
                member.looks_left = 0
                total += _memory_of(pid)
            new += [(child, pid) for child in _children(pid)]
        while new:
            pid, parent = new.pop()
            if pid not in self._members:
                self._members[pid] = _Member(
                    started=_started(pid), command=_command(parent), looks_left=_FORK_LOOKS
                )
                new += [(child, pid) for child in _children(pid)]
        return total


@dataclass(kw_only=True)
class _Member:
    """A process.

    Attributes:
        started: when; empty if it was gone already.
        command: its parent's, which it has as well until it runs a program of its own.
        looks_left: after which it counts even so.
    """

    started: str
    command: str
    looks_left: int


def _started(pid: int) -> str:
    """When a process was started; empty when it is gone."""
    with contextlib.suppress(OSError):
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[_START_FIELD]
    return ""


def _command(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_text(encoding="utf-8", errors="replace")
    return ""


def _children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):  # the thread has ended
                text = (thread / "children").read_text(encoding="ascii")
                found += [int(child) for child in text.split()]
    return found


def _memory_of(pid: int) -> Memory:
    """Of one process; nothing when it has ended."""
    sizes = dict.fromkeys(_PAGES, 0)
    with contextlib.suppress(OSError):
        status = (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] = 1024 * int(value.split()[0])  # "1234 kB"
    return Memory(allocated=sum(sizes[name] for name in _ALLOCATED), resident=sum(sizes.values()))
