"""The machine a command runs on: cores, memory, disk."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this process may use."""

    system: str
    python: str
    num_cores: int
    memory_bytes: int
    free_disk_bytes: int
    disk_path: Path


def describe_machine(folder: Path) -> Machine:
    """The machine, and the free space of the disk that holds `folder`."""
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        num_cores=_num_cores(),
        memory_bytes=_memory_bytes(),
        free_disk_bytes=shutil.disk_usage(folder).free,
        disk_path=folder,
    )


def _num_cores() -> int:
    """Cores that this process may run on, which a container or `taskset` may have limited."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    """Physical memory, or what the container may have of it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(_CGROUP_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return physical  # not Linux, or `max`: no limit
    return min(physical, limit)
