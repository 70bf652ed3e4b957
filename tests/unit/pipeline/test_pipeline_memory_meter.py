"""What a stage's processes allocate is counted, all of them together; what they map is not."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastvlm_compile.memory_meter import Memory, MemoryMeter

pytestmark = pytest.mark.skipif(
    not MemoryMeter.works_here(), reason="only Linux tells which pages were allocated"
)

MB = 10**6
PYTHON = 30 * MB
"""More than an interpreter has."""

HOLD = "import sys, time; held = bytearray(b'x') * int(sys.argv[1]); time.sleep(float(sys.argv[2]))"
"""Allocates so many bytes, and keeps them for so many seconds."""


def metered(*arguments: object) -> Memory:
    command = [sys.executable, "-c", *(str(argument) for argument in arguments)]
    with subprocess.Popen(command) as child, MemoryMeter(child.pid, interval_s=0.02) as meter:
        assert child.wait() == 0
    return meter.peak


def wait_until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_allocated_memory_counts() -> None:
    peak = metered(HOLD, 200 * MB, 1)
    assert 200 * MB <= peak.allocated <= 200 * MB + PYTHON
    assert peak.allocated <= peak.resident


def test_a_mapped_file_that_is_only_read_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * (200 * MB))
    script = """
import mmap, sys, time
with open(sys.argv[1], "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
assert sum(pages[:: mmap.PAGESIZE]) > 0
time.sleep(1)
"""
    peak = metered(script, path)
    assert peak.allocated <= PYTHON
    assert peak.resident >= 200 * MB


def test_a_child_and_what_it_starts_count_together() -> None:
    script = f"""
import subprocess, sys, time
held = bytearray(b"x") * {100 * MB}
subprocess.run([sys.executable, "-c", {HOLD!r}, "{150 * MB}", "1"], check=True)
"""
    peak = metered(script)
    assert 250 * MB <= peak.allocated <= 250 * MB + 2 * PYTHON


def test_a_process_counts_when_its_parent_has_ended(tmp_path: Path) -> None:
    seen, done = tmp_path / "seen", tmp_path / "done"
    orphan = f"""
import os, pathlib, sys, time
parent, held = os.getppid(), bytearray(b"x") * {60 * MB}
while os.getppid() == parent: time.sleep(0.01)
held += bytearray(b"x") * {140 * MB}
while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)
"""
    middle = """
import pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", *sys.argv[2:]])
while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)
"""
    script = """
import pathlib, subprocess, sys, time
subprocess.run([sys.executable, "-c", *sys.argv[2:]], check=True)
while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)
"""
    command = [sys.executable, "-c", script, str(done), middle, str(seen), orphan, str(done)]
    with subprocess.Popen(command) as child, MemoryMeter(child.pid, interval_s=0.02) as meter:
        try:
            wait_until(lambda: meter.peak.allocated >= 60 * MB)
            seen.touch()
            wait_until(lambda: meter.peak.allocated >= 200 * MB)
        finally:
            seen.touch()
            done.touch()


def test_memory_that_threads_of_one_process_start_counts() -> None:
    script = f"""
import subprocess, sys, threading
hold = [sys.executable, "-c", {HOLD!r}, "{60 * MB}", "1"]
threads = [threading.Thread(target=subprocess.run, args=(hold,)) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    assert 120 * MB <= metered(script).allocated <= 120 * MB + 3 * PYTHON


def test_a_short_spike_is_seen() -> None:
    script = f"""
import time
held = bytearray(b"x") * {200 * MB}
time.sleep(0.4)
del held
time.sleep(0.2)
"""
    assert 200 * MB <= metered(script).allocated <= 200 * MB + PYTHON


def test_a_process_that_starts_another_is_not_counted_twice() -> None:
    script = f"""
import subprocess
held = bytearray(b"x") * {200 * MB}
for _ in range(20):
    subprocess.run(["true"], check=True, preexec_fn=lambda: None)  # fork: both show these pages
"""
    assert metered(script).allocated <= 200 * MB + 2 * PYTHON


def test_a_fork_that_stays_one_counts() -> None:
    script = f"""
import os, time
if os.fork() == 0:
    held = bytearray(b"x") * {150 * MB}
    time.sleep(2)
    os._exit(0)
os.wait()
"""
    assert metered(script).allocated >= 150 * MB


def test_a_process_that_is_gone_has_nothing() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
        with MemoryMeter(child.pid) as meter:
            pass
    assert meter.peak == Memory()
