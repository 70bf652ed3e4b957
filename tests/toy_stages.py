"""Stages that take milliseconds, for tests of the pipeline itself."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.progress import Progress
from reference.errors import ImageError


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A text to write."""

    text: str = ""


@dataclass(frozen=True, kw_only=True)
class FileConfig:
    """A file outside the store: toy stages tell the test through it that they ran."""

    path: str


@dataclass(frozen=True, kw_only=True)
class SizeConfig:
    """How much to write."""

    size_bytes: int


def write(config: TextConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Writes the text."""
    progress(1, 1, "text")
    (out / "text").write_text(config.text)


def join(config: TextConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Joins the texts of all inputs, in a folder of its own, and leaves noise in the log."""
    print("noise of a library")
    texts = [(inputs[role] / "text").read_text() for role in sorted(inputs)]
    (out / "text").write_text(config.text.join(texts))
    (out / "more").mkdir()
    (out / "more" / ".hidden").write_text("also kept")


def count(config: FileConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Appends one byte to a file, so that a test can count the runs."""
    with Path(config.path).open("a") as file:
        file.write("x")
    (out / "text").write_text("counted")


def fail(config: TextConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Fails as a library does."""
    (out / "half").write_text("half")
    print("the last words")
    raise RuntimeError(config.text)


def refuse(config: TextConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Refuses its input as a stage of ours does."""
    raise ImageError(config.text, hint="take another one")


def die(config: TextConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Ends without a word, as after a crash in native code."""
    os._exit(7)


def nothing(config: TextConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Writes nothing, which is a mistake."""


def fill(config: SizeConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Writes a lot."""
    with (out / "big").open("wb") as file:
        for _ in range(config.size_bytes // 4096):
            file.write(bytes(4096))


def hang(config: FileConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Tells its process id through a named pipe, and never ends."""
    (out / "half").write_text("half")
    with Path(config.path).open("w") as file:
        file.write(str(os.getpid()))
    threading.Event().wait()


def hang_once(
    config: FileConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Hangs as `hang` does the first time; the next one writes a text."""
    mark = Path(f"{config.path}.hung")
    if not mark.exists():
        mark.touch()
        hang(config, inputs, out, progress)
    (out / "text").write_text("went on")
