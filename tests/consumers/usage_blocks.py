"""Blocks of Markdown that say how to use a bundle in a consumer, and what runs them.

The convention stands at the top of README's section "Use it in".
"""

import os
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from validation.consumers.outcome import HOW_TO_INSTALL, Environment
from validation.consumers.registry import CONSUMERS

TIMEOUT_S = 600
_MARKER = re.compile(r"^<!-- consumer: (?P<name>.+?)(?P<serves>, serves)? -->$", re.MULTILINE)
_FENCE = re.compile(r"\n```(?P<language>\w+)\n(?P<text>.*?)\n```$", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):\d+\S*")
_SUFFIXES = {"python": ".py", "js": ".mjs", "sh": ".sh"}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block: which consumer it is for, and its text."""

    page: str
    consumer: str
    serves: bool
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.consumer} ({self.language})"


class BlockError(AssertionError):
    """A block is not as the convention wants it, or did not do what it promises."""


def blocks_of(page: str, markdown: str) -> tuple[Block, ...]:
    """All marked blocks of a page, in order.

    Raises:
        BlockError: a marker names no consumer, or no fence of a known language follows it.
    """
    found = []
    for marker in _MARKER.finditer(markdown):
        fence = _FENCE.match(markdown, marker.end())
        if marker["name"] not in [each.name for each in CONSUMERS]:
            raise BlockError(f"{page}: no consumer is called {marker['name']!r}")
        if fence is None or fence["language"] not in _SUFFIXES:
            raise BlockError(f"{page}: {marker[0]}: no fence of {', '.join(_SUFFIXES)} follows")
        found.append(
            Block(
                page=page,
                consumer=marker["name"],
                serves=bool(marker["serves"]),
                language=fence["language"],
                text=fence["text"],
            )
        )
    return tuple(found)


def run_block(block: Block, folder: Path, environment: Environment, own_bin: Path) -> str:
    """Runs a block; the last line that it printed, or the address that it served.

    Args:
        block: what to run.
        folder: to run it in, with all that the convention promises but node_modules.
        environment: where the consumers are.
        own_bin: of the interpreter that has fastvlm-compile.

    Raises:
        BlockError: its environment is missing, it failed, took too long or printed nothing.
    """
    bin_folder = _bin_folder(block, environment, own_bin)
    script = folder / f"block{_SUFFIXES[block.language]}"
    script.write_text(f"{block.text}\n", encoding="utf-8")
    if environment.node_modules.is_dir():
        (folder / "node_modules").symlink_to(environment.node_modules)
    commands = {
        "python": [str(bin_folder / "python"), script.name],
        "js": ["node", script.name],
        "sh": ["bash", "-e", script.name],
    }
    variables = {
        **os.environ,
        "PATH": os.pathsep.join(map(str, (bin_folder, own_bin, os.environ["PATH"]))),
        "HF_HUB_OFFLINE": "1",
        # Nobody listens there: a block that needs the network fails at once.
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    command = commands[block.language]
    return (_served if block.serves else _answered)(block, command, folder, variables)


def _bin_folder(block: Block, environment: Environment, own_bin: Path) -> Path:
    name = next(each.environment for each in CONSUMERS if each.name == block.consumer)
    if not name:
        return own_bin
    place = environment.root / name
    there = environment.node_modules if name == "node" else environment.python(name)
    if not there.exists():
        raise BlockError(f"{block}: {place} is not installed: run `{HOW_TO_INSTALL}`")
    return own_bin if name == "node" else there.parent


def _answered(block: Block, command: list[str], folder: Path, variables: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BlockError(f"{block}: not done after {TIMEOUT_S} s") from None
    if done.returncode:
        tail = done.stderr[-2000:]
        raise BlockError(f"{block}: exit code {done.returncode}\n{tail}")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if not lines:
        raise BlockError(f"{block}: it printed nothing")
    return lines[-1]


def _served(block: Block, command: list[str], folder: Path, variables: dict[str, str]) -> str:
    log = folder / "served.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        address = _wait_for_address(block, process, log)
        with urllib.request.urlopen(address, timeout=30) as answer:
            if answer.status != 200:
                raise BlockError(f"{block}: {address} answers {answer.status}")
        # Not the interrupt, which a shell's background jobs ignore.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return address


def _wait_for_address(block: Block, process: "subprocess.Popen[bytes]", log: Path) -> str:
    for _ in range(600):
        told = log.read_text(encoding="utf-8", errors="replace")
        if found := _ADDRESS.search(told):
            return found[0]
        if process.poll() is not None:
            raise BlockError(f"{block}: it ended with code {process.returncode}\n{told[-2000:]}")
        time.sleep(0.1)
    raise BlockError(f"{block}: it printed no address within a minute")
