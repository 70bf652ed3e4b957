"""Describes the machine, and sees what else keeps it busy."""

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastvlm_compile.latency.request import RuntimeChoice
from fastvlm_compile.machine import describe_machine
from validation.latency.environment import NOT_TOLD, Environment

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_STAT = Path("/proc/stat")
_DISTRIBUTIONS: dict[RuntimeChoice, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "torch": ("torch",),
    "torch-compiled": ("torch",),
    "mlx": ("mlx", "mlx-lm"),
    "coreml": ("coremltools",),
}


def describe_environment(runtimes: Sequence[RuntimeChoice], threads: int) -> Environment:
    """What a comparison must hold equal."""
    machine = describe_machine(Path.cwd())
    names = dict.fromkeys(("numpy", *(name for each in runtimes for name in _DISTRIBUTIONS[each])))
    versions = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):  # its variants say `not run`
            versions[name] = version(name)
    return Environment(
        processor=_processor(),
        num_cores=machine.num_cores,
        threads=threads,
        governor=_read(_GOVERNOR) or NOT_TOLD,
        memory_bytes=machine.memory_bytes,
        system=machine.system,
        python=machine.python,
        versions=versions,
    )


def default_threads() -> int:
    """As many as there are cores for us."""
    return describe_machine(Path.cwd()).num_cores


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


class OthersWatch:
    """How many processors others keep busy, from the first call on; Linux alone tells.

    Counts what our children used as ours once they have ended.
    """

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._busy_s, self._own_s = _busy_seconds(), _own_seconds()

    def processors(self) -> float:
        """The mean since the start; -1 where it is not told."""
        busy = _busy_seconds()
        if busy < 0:
            return -1.0
        others = busy - self._busy_s - (_own_seconds() - self._own_s)
        return round(max(0.0, others / (time.monotonic() - self._started_s)), 3)


def _busy_seconds() -> float:
    """That all processors have worked since the machine started; proc(5) has the fields."""
    first, *_ = _read(_STAT).splitlines() or [""]
    if not first.startswith("cpu "):
        return -1.0
    user, nice, kernel, _idle, _waiting, interrupts, soft, *_ = map(int, first.split()[1:])
    return (user + nice + kernel + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _processor() -> str:
    for line in _read(_CPUINFO).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False)
        return told.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
