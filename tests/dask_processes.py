"""A Dask scheduler and workers as processes of their own, on 127.0.0.1, as a user starts them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 120.0
TESTS = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """A running scheduler without workers."""

    address: str
    folder: Path
    """Workers run here, and keep here what they keep."""

    @contextlib.contextmanager
    def worker(
        self, *arguments: str, path: Path | None = None, memory: str = "memory=64e9"
    ) -> Iterator[int]:
        """A worker under its nanny, which starts it anew when it dies; yields the nanny's pid.

        Args:
            arguments: further ones for `dask worker`.
            path: where Python looks first for modules.
            memory: what the worker declares; empty for nothing.
        """
        declared = ["--resources", memory] if memory else []
        command = ["worker", self.address, "--nthreads", "1", "--no-dashboard", *declared]
        command += ["--local-directory", str(self.folder), *arguments]
        folders = [*([path] if path else []), TESTS, os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(map(str, folders)).rstrip(os.pathsep)}
        with _dask(command, cwd=self.folder, environment=environment) as process:
            yield process.pid


@contextlib.contextmanager
def scheduler(folder: Path) -> Iterator[Scheduler]:
    """A scheduler on a free port."""
    told = folder / "scheduler.json"
    told.unlink(missing_ok=True)
    command = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    command += ["--scheduler-file", str(told)]
    with _dask(command, cwd=folder, environment={}):
        yield Scheduler(address=_address(told), folder=folder)


def _address(told: Path) -> str:
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.suppress(FileNotFoundError, ValueError):
            address: str = json.loads(told.read_text())["address"]
            return address
        assert time.monotonic() < deadline_s, "the scheduler does not start"
        time.sleep(0.1)


@contextlib.contextmanager
def _dask(
    arguments: list[str], *, cwd: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dask", *arguments]
    # Words of the processes are for who looks into a failed test's folder.
    with (cwd / f"{arguments[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
