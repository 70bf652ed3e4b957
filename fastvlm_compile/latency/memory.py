"""The most memory that this process ever had."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """Resident bytes at their peak: interpreter, libraries and mapped weights included.

    On Linux from `VmHWM`: `getrusage` also counts what the parent had when it started us.
    """
    if sys.platform == "linux":
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) of the two systems
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
