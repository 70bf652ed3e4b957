"""Stopped in mid-stage: the child ends, nothing half-made stays, the next build works."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_build import run_toys, toy_plan, toy_stage

from fastvlm_compile.store import Store

_PATIENCE_S = 30

# Runs a stage that never ends; the stage tells its process id through the pipe `told`.
BUILDER = """
import signal, sys
# A shell starts background jobs with the interrupt ignored; a terminal does not.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fastvlm_compile import cli
from toy_build import run_toys, toy_plan, toy_stage
from toy_stages import FileConfig
import click

@click.command()
def hang():
    run_toys(toy_plan(toy_stage("hang", FileConfig(path="told"))), Path("store"))

module = type(sys)("hanging")
module.hang = hang
sys.modules["hanging"] = module
cli.COMMANDS["hang"] = ("hanging:hang", "Never ends.")
sys.exit(cli.run(["hang"]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("told")
    return tmp_path


@pytest.fixture
def build(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A build in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-c", BUILDER, str(Path(__file__).parents[1])]
    with subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process
        process.kill()


def _child_of(folder: Path) -> int:
    """A handle of the stage's process, once it is in mid-stage."""
    told = os.open(folder / "told", os.O_RDONLY | os.O_NONBLOCK)
    ready, _, _ = select.select([told], [], [], _PATIENCE_S)
    assert ready, "the stage did not start"
    child = os.pidfd_open(int(os.read(told, 100)))
    os.close(told)
    return child


def _wait_for_end(handle: int) -> None:
    ready, _, _ = select.select([handle], [], [], _PATIENCE_S)
    os.close(handle)
    assert ready, "the stage's process lives on"


def _stop(handle: int) -> None:
    """Stop all threads of a process; a signal alone is noticed some time after it was sent."""
    signal.pidfd_send_signal(handle, signal.SIGSTOP)
    told = Path(f"/proc/self/fdinfo/{handle}").read_text()
    pid = next(line.split()[1] for line in told.splitlines() if line.startswith("Pid:"))
    deadline_s = time.monotonic() + _PATIENCE_S
    while {_state(task) for task in Path(f"/proc/{pid}/task").iterdir()} != {"T"}:
        assert time.monotonic() < deadline_s, "the stage's process does not stop"


def _state(task: Path) -> str:
    """`R`, `S`, `T` ...: the field after the name, which stands in parentheses (proc(5))."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to watch a grandchild")
class TestInterrupted:
    def test_ctrl_c_kills_the_child_cleans_up_and_exits_with_130(
        self, folder: Path, build: subprocess.Popen[str]
    ) -> None:
        child = _child_of(folder)
        os.killpg(build.pid, signal.SIGINT)  # as the terminal does: to the whole group
        _, told = build.communicate(timeout=_PATIENCE_S)
        assert build.returncode == 130
        assert told.splitlines() == [f"{'toy'.ljust(26)}  interrupted", "error: interrupted"]
        _wait_for_end(child)
        assert not any((folder / "store" / "staging").iterdir())
        assert not any((folder / "store" / "entries").iterdir())

    def test_a_killed_build_takes_its_child_along_and_the_next_one_cleans_up(
        self, folder: Path, build: subprocess.Popen[str]
    ) -> None:
        child = _child_of(folder)
        build.kill()
        build.wait()  # its locks are free when it is gone, which may be after its child
        _wait_for_end(child)
        assert any((folder / "store" / "staging").iterdir())
        finished = run_toys(toy_plan(toy_stage("write")), folder / "store")
        assert (finished.artifacts["toy"].folder / "text").is_file()
        assert not any((folder / "store" / "staging").iterdir())

    def test_a_worker_that_outlives_its_killed_build_keeps_its_folder_to_itself(
        self, folder: Path, build: subprocess.Popen[str]
    ) -> None:
        child = _child_of(folder)
        _stop(child)  # it sees nothing of the build's end now: as in a long call in native code
        build.kill()
        build.wait()
        store = Store(root=folder / "store")
        try:
            store.sweep()
            assert any((folder / "store" / "staging").iterdir())
        finally:
            signal.pidfd_send_signal(child, signal.SIGCONT)
        _wait_for_end(child)
        store.sweep()
        assert not any((folder / "store" / "staging").iterdir())
