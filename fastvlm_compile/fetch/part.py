"""An incomplete download: its bytes in `NAME.part`, what they are of in `NAME.part.json`."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastvlm_compile.durable import Disk, refusals
from fastvlm_compile.errors import FetchError, OutputError
from fastvlm_compile.progress import Progress

_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which file of which server a part is of."""

    url: str
    size_bytes: int
    """Of the whole file."""
    validator: str
    """ETag or time of the last change; empty where a rest cannot be asked for."""


class Part:
    """The part file, locked while this object is in use; get one from `open_part`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self.have_bytes = os.fstat(file.fileno()).st_size
        self.received_bytes = 0
        """Of all tries in this process."""
        self.num_drops = 0
        """How often bytes were dropped."""
        self.origin = _read_origin(_notes(path))

    @property
    def complete(self) -> bool:
        """Nothing is missing, if the server still has the same file."""
        return self.origin is not None and self.have_bytes == self.origin.size_bytes

    def restart(self, origin: Origin | None) -> None:
        """Drop all bytes; what follows is of `origin`."""
        self.num_drops += self.have_bytes > 0
        self._file.truncate(0)
        self.have_bytes = 0
        self.origin = origin
        if origin is None:
            _notes(self.path).unlink(missing_ok=True)
        else:
            text = json.dumps(dataclasses.asdict(origin), indent=2) + "\n"
            Disk().write(_notes(self.path), text.encode())

    def append(self, block: bytes) -> None:
        """Add the bytes that follow."""
        self._file.write(block)
        self.have_bytes += len(block)
        self.received_bytes += len(block)

    def flush(self) -> None:
        """Give what was written to the medium."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def sha256(self, progress: Progress) -> str:
        """Digest of all bytes, read again from the disk."""
        digest = hashlib.sha256()
        self._file.seek(0)
        done = 0
        while block := self._file.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            progress(done, self.have_bytes, "taking the archive's digest")
        return digest.hexdigest()

    def remove(self) -> None:
        """Forget the download, which is in place elsewhere or of no use."""
        _notes(self.path).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def open_part(path: Path) -> Iterator[Part]:
    """Open what an earlier try left at `path`, or an empty part; an empty one is not left behind.

    Raises:
        FetchError: another process is at it.
        OutputError: the folder cannot be written, or the disk is full.
    """
    with refusals(OutputError, path):
        Disk().make_folder(path.parent)
        with path.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(path) from None
            if not _is_still(path, file):
                raise _busy(path)
            part = Part(path, file)
            try:
                yield part
            finally:
                file.flush()
                if part.have_bytes == 0:
                    part.remove()


def _busy(path: Path) -> FetchError:
    return FetchError(f"{path}: another process fetches this", hint="wait until it is done")


def _is_still(path: Path, file: IO[bytes]) -> bool:
    """False when another process has finished with the file between our opening and locking it."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _notes(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_origin(path: Path) -> Origin | None:
    """None where the notes are lost: the bytes cannot be told from those of another file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        origin = Origin(**raw)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    texts = isinstance(origin.url, str) and isinstance(origin.validator, str)
    return origin if texts and isinstance(origin.size_bytes, int) else None
