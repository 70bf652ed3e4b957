"""What this machine has left for a build: memory and disk."""

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bytes that a build may take."""

    memory_bytes: int
    disk_bytes: int


def room_here(folder: Path) -> Room:
    """The memory that a new process could have, and the free space of the disk below `folder`.

    Args:
        folder: of the store; it need not be there yet.
    """
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    return Room(memory_bytes=_memory_bytes(), disk_bytes=shutil.disk_usage(there).free)


def _memory_bytes() -> int:
    """What the kernel says could be had without swapping; all of it where it does not say."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [physical]
    with contextlib.suppress(OSError):  # no Linux
        match = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text("ascii"), re.MULTILINE)
        if match is not None:
            found.append(1024 * int(match[1]))
    with contextlib.suppress(OSError, ValueError):  # no container, or `max`: no limit
        limit = int((_CGROUP / "memory.max").read_text("ascii"))
        match = re.search(r"^anon (\d+)", (_CGROUP / "memory.stat").read_text("ascii"))
        found.append(limit - (int(match[1]) if match is not None else 0))
    return min(found)
