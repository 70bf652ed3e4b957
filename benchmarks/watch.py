"""Runs a command and watches its time and memory, and describes the machine (Linux)."""

import importlib.metadata
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from fastvlm_compile.memory_meter import MemoryMeter

POLL_S = 0.02
"""Between two looks at the memory; a peak that is shorter than this may be missed."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a command cost, its children included."""

    wall_s: float
    cpu_s: float
    peak_resident_bytes: int
    """Everything resident, mapped files that are clean included."""
    peak_anonymous_bytes: int
    """What the process allocated: the machine must have this much."""


def watch(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Watched:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    started_s, usage = time.monotonic(), os.times()
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command, env=None if env is None else dict(env), stdout=log, stderr=log
        )
        with MemoryMeter(child.pid, interval_s=POLL_S) as meter:
            child.wait()
        wall_s, ended = time.monotonic() - started_s, os.times()
        if child.returncode != 0:
            log.seek(0)
            tail = log.read().decode(errors="replace")[-4000:]
            raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}:\n{tail}")
    cpu_s = (ended.children_user + ended.children_system) - (
        usage.children_user + usage.children_system
    )
    return Watched(
        wall_s=wall_s,
        cpu_s=cpu_s,
        peak_resident_bytes=meter.peak.resident,
        peak_anonymous_bytes=meter.peak.allocated,
    )


def describe_machine(distributions: Sequence[str]) -> dict[str, str]:
    """Processor, memory, system and versions; no host name, no paths."""
    return {
        "processor": _processor_name(),
        "cores": str(os.cpu_count()),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in distributions},
    }


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
