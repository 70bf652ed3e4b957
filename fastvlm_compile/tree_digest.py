"""What a folder holds, as one digest; files that did not change need no second reading.

Like git's index: a file whose size, modification time, change time and inode are those of the last
time has the digest of the last time. A file that was touched within the clock's resolution of that
moment is not trusted, because a second change of it could not be told from the first.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

_CLOCK_RESOLUTION_NS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file: its path below the folder with `/`, its size and the sha256 of its bytes."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FileStat:
    """What the file system says of a file that did not change."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "FileStat":
        """The present state of a file; symlinks are followed."""
        stat = path.stat()
        return cls(
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
            inode=stat.st_ino,
        )


@dataclass(frozen=True, kw_only=True)
class StatMemo:
    """Path below a folder -> its state and sha256 when it was last read."""

    files: Mapping[str, tuple[FileStat, str]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The memo as a file's content."""
        rows = {
            path: [stat.size_bytes, stat.mtime_ns, stat.ctime_ns, stat.inode, sha256]
            for path, (stat, sha256) in self.files.items()
        }
        return json.dumps(rows, indent=0).encode()

    @classmethod
    def load(cls, path: Path) -> "StatMemo":
        """A memo that was kept; an empty one when there is none or it cannot be understood."""
        try:
            rows = json.loads(path.read_bytes())
            files = {
                name: (FileStat(size_bytes=a, mtime_ns=b, ctime_ns=c, inode=d), sha256)
                for name, (a, b, c, d, sha256) in rows.items()
            }
        except (OSError, ValueError, AttributeError, TypeError):
            return cls()  # worth no warning: the only loss is reading the files once more
        return cls(files=files)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The files of a folder, sorted by path, and a memo for the next reading."""

    files: tuple[FileRecord, ...]
    memo: StatMemo

    @property
    def digest(self) -> str:
        """sha256 over paths, sizes and contents; not over times, modes and empty folders."""
        return digest_of(self.files)


def digest_of(files: Iterable[FileRecord]) -> str:
    """The digest of a folder with these files."""
    rows = sorted([file.path, file.size_bytes, file.sha256] for file in files)
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def read_tree(folder: Path, memo: StatMemo, *, hidden: bool) -> Tree:
    """Digest every file below a folder; symlinks are followed.

    Args:
        folder: any folder.
        memo: of an earlier reading of the same folder; files that it knows are not read again.
        hidden: whether names with a leading dot count (`.git`, `.cache` of a download).

    Raises:
        OSError: a file cannot be read.
    """
    known = memo.files
    records = []
    kept: dict[str, tuple[FileStat, str]] = {}
    for name, path in sorted(_walk(folder, hidden=hidden)):
        before = FileStat.of(path)
        remembered = known.get(name)
        if remembered is not None and remembered[0] == before:
            sha256 = remembered[1]
            kept[name] = remembered
        else:
            started_ns = time.time_ns()
            sha256 = sha256_of(path)
            settled = max(before.mtime_ns, before.ctime_ns) + _CLOCK_RESOLUTION_NS < started_ns
            if settled and FileStat.of(path) == before:
                kept[name] = (before, sha256)
        records.append(FileRecord(path=name, size_bytes=before.size_bytes, sha256=sha256))
    return Tree(files=tuple(records), memo=StatMemo(files=kept))


def unlinked_elsewhere(folder: Path, memo: StatMemo) -> StatMemo:
    """The memo after hard links of its files were removed, which changes nothing but ctimes."""
    files = {}
    for name, (before, sha256) in memo.files.items():
        now = FileStat.of(folder / name)
        if replace(now, ctime_ns=before.ctime_ns) == before:
            files[name] = (now, sha256)
    return StatMemo(files=files)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(folder: Path, *, hidden: bool) -> Iterator[tuple[str, Path]]:
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent).stat()
        if (here.st_dev, here.st_ino) in seen:  # a symlink that leads round in a circle
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        for name in files:
            if hidden or not name.startswith("."):
                path = Path(parent, name)
                yield path.relative_to(folder).as_posix(), path
